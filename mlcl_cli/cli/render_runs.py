"""Runs and sweeps as people read them, on stdout."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from mlcl_cli.cli.render import new_console, print_markup, safe, say, show_table
from mlcl_cli.formatting import duration, size
from mlcl_cli.runs.listing import StoredRun

if TYPE_CHECKING:  # it imports torch
    from mlcl_cli.workflows.sweep_table import SweepResult, SweepTable


def show_runs(runs: Sequence[StoredRun], differing: Mapping[StoredRun, str]) -> None:
    """Print each run, oldest first, with what it differs in: a table, or lines if the terminal is too narrow for it."""
    if not runs:
        say("There are no runs in this workspace yet")
        return
    left = ["run", "stage", "differs in", "state", "data set", "began (UTC)"]
    right = ["epochs", "best", "size"]
    rows = []
    for run in runs:
        summary = None if run.problem else run.summary
        best = summary.best if summary else None
        about = [summary.dataset if summary else "", run.created[:16].replace("T", " ")]
        epochs = f"{summary.epoch:,} of {summary.epochs:,}" if summary else ""
        score = f"{best.score:.2f}" if best else ""
        cells = [run.folder.name, run.stage, differing.get(run, ""), run.state, *about, epochs, score, size(run.size)]
        rows.append([safe(cell) for cell in cells])
    if sum(column_widths([left + right, *rows])) <= new_console().width:
        show_table(rows, left=left, right=right, whole=True)
        return
    for name, stage, settings, state, _, _, epochs, score, bytes_ in rows:
        facts = [stage, state, f"{epochs} epochs" if epochs else "", f"best {score}" if score else "", bytes_]
        print_markup(new_console(), f"{name}: {', '.join(filter(None, facts))}")
        if settings:
            print_markup(new_console(), f"  {settings}")


def column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column of a table with its padding; cells are markup."""
    return [max(Text.from_markup(cell).cell_len for cell in column) + 2 for column in zip(*rows, strict=True)]


def show_sweep(result: "SweepResult") -> None:
    """Print a table of the headline metrics, as many as there is room for, and what differs from the first setting."""
    from mlcl_cli.workflows.sweep_formats import caption, metric_label, short_keys

    keys = short_keys(result.keys) or ["setting"]
    for table in result.tables:
        names = [[*row.values.values()] or ["as in the profile"] for row in table.rows]
        cells = [
            [f"{row.metrics[key]}{'†' if row.is_significant(key) else ''}" for key in table.metrics]
            for row in table.rows
        ]
        used = sum(column_widths([keys, *([*map(safe, name)] for name in names)]))
        widths = column_widths([[metric_label(key) for key in table.metrics], *cells])
        metrics = _fitting(table, widths, new_console().width - used)
        rows = [
            [*map(safe, name), *(cell for key, cell in zip(table.metrics, line, strict=True) if key in metrics)]
            for name, line in zip(names, cells, strict=True)
        ]
        show_table(rows, left=keys, right=[safe(metric_label(key)) for key in metrics])
        _show_differences(table, keys, names)
        say(caption(table))
        if len(metrics) < len(table.metrics):
            say(f"A wider terminal, --markdown or --json shows all {len(table.metrics)} metrics")
    say(f"Took {duration(result.seconds)}")


def _fitting(table: "SweepTable", widths: Sequence[int], room: int) -> list[str]:
    """The deciding metric, and as many others as there is room for, in their order."""
    width = dict(zip(table.metrics, widths, strict=True))
    chosen = {table.deciding}
    for key in table.metrics:
        if sum(width[other] for other in chosen | {key}) > room:
            break
        chosen.add(key)
    return [key for key in table.metrics if key in chosen]


def _show_differences(table: "SweepTable", keys: Sequence[str], names: Sequence[Sequence[str]]) -> None:
    from mlcl_cli.workflows.sweep_formats import metric_label

    rows = []
    for name, row in zip(names, table.rows, strict=True):
        if row.differences:
            change = row.differences[table.deciding]
            bounds = f"{change.interval.low:+.2f} to {change.interval.high:+.2f}"
            rows.append([*map(safe, name), f"{change.value:+.2f}", bounds, f"{change.p:.4f}", f"{change.adjusted:.4f}"])
    if rows:
        title = f"{metric_label(table.deciding)}: difference from the first setting"
        show_table(rows, left=keys, right=["difference", "95% interval", "p", "p (Holm)"], title=title)
