"""Results as people and scripts read them, on stdout, and errors, on stderr."""

import json as json_format
import sys
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlcl_cli.errors import MlclError

NOISY = 1.5
SHOWN_FINDINGS = 10
WIDE = 110
SHOWN_ABOVE = ("command", "dataset", "protocol", "metrics", "versions")


def show_error(error: MlclError) -> None:
    """One line (a profile's errors: one each) on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]error:[/red] {escape(str(error))}")


def show(result: Mapping[str, Any], *, json: bool) -> None:
    """A command's result, for scripts or for people."""
    (show_json if json else show_metrics if "metrics" in result else show_facts)(result)


def show_json(result: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    ascii_only = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    sys.stdout.write(json_format.dumps(result, ensure_ascii=ascii_only, allow_nan=False) + "\n")


def show_metrics(result: Mapping[str, Any]) -> None:
    """Figures with their protocol's name, and where they come from."""
    metrics: Mapping[str, float] = result["metrics"]
    table = Table(title=f"{result['dataset']}, protocol {result['protocol']}", title_justify="left")
    table.add_column("metric")
    table.add_column("%", justify="right")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.2f}")
    console = _stdout()
    console.print(table)
    shown = {key: value for key, value in result.items() if key not in SHOWN_ABOVE and value is not None}
    for key, value in shown.items():
        console.print(f"{key.replace('_', ' ')}: {escape(_in_words(value))}")


def show_facts(result: Mapping[str, Any]) -> None:
    """A result without figures, a line each."""
    for key, value in result.items():
        if key != "command":
            _stdout().print(f"{key.replace('_', ' ')}: {escape(_in_words(value))}")


def show_check(result: Mapping[str, Any]) -> None:
    """What was looked at, the first findings of each check, and the verdict."""
    findings: list[Mapping[str, str]] = result["findings"]
    table = Table(title=f"{result['dataset']}: what a run will need", title_justify="left", box=box.SIMPLE, padding=0)
    for name in ("check", "looked at", "errors", "notes"):
        table.add_column(name, justify="right" if name in ("errors", "notes") else "left")
    checks = list(dict.fromkeys([*result["looked_at"], *(finding["check"] for finding in findings)]))
    for check in checks:
        counts = [sum(f["check"] == check and f["severity"] == kind for f in findings) for kind in ("error", "note")]
        table.add_row(check, result["looked_at"].get(check, ""), *(f"{count:,}" if count else "" for count in counts))
    console = _stdout()
    console.print(table)
    for check in checks:
        own = [finding for finding in findings if finding["check"] == check]
        for finding in own[:SHOWN_FINDINGS]:
            colour = "red" if finding["severity"] == "error" else "yellow"
            told = escape(f"{finding['where']}: {finding['what']}")
            console.print(f"[{colour}]{finding['severity']}[/{colour}] {check}: {told}")
        if len(own) > SHOWN_FINDINGS:
            console.print(f"and {len(own) - SHOWN_FINDINGS:,} more of {check}; --output FILE writes them all")
    console.print("Nothing that would make a run fail" if result["verdict"] == "sound" else "A run would fail")


def show_runs(result: Mapping[str, Any]) -> None:
    """A line a run, oldest first; on a narrow screen without what its name tells, too."""
    console = _stdout()
    wide = ("data set", "when") if console.width >= WIDE else ()
    table = Table(box=box.SIMPLE, padding=0)
    for name in ("run", "stage", "state", "epochs", "best", "size", *wide):
        table.add_column(name, justify="right" if name in ("epochs", "best", "size") else "left", no_wrap=True)
    for run in result["runs"]:
        best = "" if run["score"] is None else f"{run['score']:.2f}"
        epochs = f"{run['epoch']:,} of {run['epochs']:,}"
        name, size = escape(run["name"]), f"{run['bytes'] / 2**20:,.0f} MB"
        told = {
            "data set": run["dataset"] or "",
            "when": run["created"][:16].replace("T", " ") + " UTC" if run["created"] else "",
        }
        table.add_row(name, run["stage"], run["state"], epochs, best, size, *(escape(told[key]) for key in wide))
    console.print(table if result["runs"] else "There are no runs in this workspace yet")


def show_comparison(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """A table of percentages, a row for each name; the best of a row is bold."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = Table(title=title, title_justify="left")
    table.add_column("data set")
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        best = max(row.values())
        cells = [
            f"[bold]{row[column]:.1f}[/bold]" if row[column] == best else f"{row[column]:.1f}" for column in columns
        ]
        table.add_row(name, *cells)
    _stdout().print(table)


def show_bench(result: Mapping[str, Any]) -> None:
    """The benchmark's table: medians an item, ratios, peak memory, the floor's share of our time; then its notes."""
    rate, copied = result["product_flops"] / 1e9, result["copy_bytes_per_s"] / 1e9
    where = f"{result['device']}, {result['threads']} threads, {rate:,.0f} GFLOP/s, copies {copied:,.0f} GB/s"
    table = Table(
        title=f"Medians of {result['repeats']} runs; {where}", title_justify="left", box=box.SIMPLE, padding=0
    )
    for name in ("", "ours", "plain", "ratio", "memory, plain's", "floor"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    notes = []
    for row in result["rows"]:
        sides = [side for side in (row["ours"], row["plain"]) if side is not None]
        each = [_seconds(side["median_s"] / count) for side, count in zip(sides, row["items"], strict=False)]
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:,.{2 if row['ratio'] < 10 else 0}f}"
        memory = " / ".join("–" if (used := side["memory_bytes"]) is None else f"{used / 2**20:,.0f}" for side in sides)
        share = "" if row["share_of_floor"] is None else f"{row['share_of_floor']:.0%}"
        table.add_row(escape(row["name"]), each[0], each[1] if len(each) > 1 else "", ratio, f"{memory} MB", share)
        if row["disagreement"]:
            notes.append(f"{row['name']}: no ratio, the sides disagree: {row['disagreement']}")
        if row["floor"]:
            notes.append(f"{row['name']}: the floor is {row['floor']}")
        if (spread := max(side["most_s"] / side["least_s"] for side in sides)) > NOISY:
            notes.append(f"{row['name']}: noisy, the slowest run took {spread:.1f} times the fastest")
    console = _stdout()
    console.print(table)
    for note in notes:
        console.print(escape(note))


def _seconds(value: float) -> str:
    size, unit = next(
        (size, unit) for size, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")) if value >= size or size < 1e-5
    )
    return f"{value / size:.3g} {unit}"


def _stdout() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        lists = {key: f"[{', '.join(map(str, part))}]" for key, part in value.items() if isinstance(part, list)}
        return ", ".join(f"{key} {lists.get(key) or _in_words(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ("\n  " if len(value) > 1 else "") + "\n  ".join(_in_words(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
