"""Results as people and scripts read them, on stdout, and errors, on stderr."""

import json as json_format
import sys
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from mlcl_cli.cli.wrapping import WordWrapped
from mlcl_cli.errors import MlclError
from mlcl_cli.formatting import counted
from mlcl_cli.streams import printable, printable_json

NOISY = 1.5
SHOWN_FINDINGS = 10
WIDE = 110
SHOWN_ABOVE = ("command", "dataset", "protocol", "metrics", "versions")
COMPUTED = ("device", "precision", "inference_weights", "image", "data")  # one line for all of them


def show_error(error: MlclError) -> None:
    """One line (a profile's errors: one each) on stderr."""
    lines = "\n".join(safe(line) for line in error.lines)
    error_console().print(f"[red]error:[/red] {lines}")


def error_console() -> WordWrapped:
    """A console on stderr."""
    return WordWrapped(stderr=True)


def safe(text: object) -> str:
    """`text` as rich markup that prints as itself, on one line, its control characters escaped."""
    return escape(printable(text))


def say(text: str) -> None:
    """One line for people on stdout."""
    _stdout().print(safe(text))


def show(result: Mapping[str, Any], *, json: bool) -> None:
    """A command's result, for scripts or for people."""
    (show_json if json else show_metrics if "metrics" in result else show_facts)(result)


def show_json(result: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    ascii_only = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json_format.dumps(result, ensure_ascii=ascii_only, allow_nan=False)
    sys.stdout.write(f"{printable_json(text)}\n")


def show_metrics(result: Mapping[str, Any]) -> None:
    """Figures with their protocol's name, and where they come from."""
    metrics: Mapping[str, float] = result["metrics"]
    table = Table(title=safe(f"{result['dataset']}, protocol {result['protocol']}"), title_justify="left")
    table.add_column("metric")
    table.add_column("%", justify="right")
    for name, value in metrics.items():
        table.add_row(safe(name), f"{value:.2f}")
    console = _stdout()
    console.print(table)
    computed = {key.replace("_", " "): result[key] for key in COMPUTED if result.get(key) is not None}
    hidden = (*SHOWN_ABOVE, *COMPUTED)
    shown = {key: value for key, value in result.items() if key not in hidden and value is not None}
    for key, value in {**shown, "computed with": computed}.items():
        console.print(f"{safe(key.replace('_', ' '))}: {escape(_in_words(value))}")


def show_facts(result: Mapping[str, Any]) -> None:
    """A result without figures, a line each."""
    for key, value in result.items():
        if key != "command" and value is not None:
            _stdout().print(f"{safe(key.replace('_', ' '))}: {escape(_in_words(value))}")


def show_check(result: Mapping[str, Any]) -> None:
    """What was looked at, the first findings of each check, and the verdict."""
    findings: list[Mapping[str, str]] = result["findings"]
    table = Table(title=f"{result['dataset']}: what a run will need", title_justify="left", box=box.SIMPLE, padding=0)
    for name in ("check", "looked at", "errors", "notes"):
        table.add_column(name, justify="right" if name in ("errors", "notes") else "left")
    checks = list(dict.fromkeys([*result["looked_at"], *(finding["check"] for finding in findings)]))
    for check in checks:
        counts = [sum(f["check"] == check and f["severity"] == kind for f in findings) for kind in ("error", "note")]
        looked = result["looked_at"].get(check, "")
        looked = Path(looked).name if Path(looked).is_absolute() else looked  # a narrow table would cut a path
        table.add_row(check, safe(looked), *(f"{count:,}" if count else "" for count in counts))
    console = _stdout()
    console.print(table)
    failing = {finding["check"] for finding in findings if finding["severity"] == "error"}
    for check in sorted(checks, key=lambda check: check not in failing):
        own = sorted((f for f in findings if f["check"] == check), key=lambda finding: finding["severity"])
        shown = own[:SHOWN_FINDINGS]
        for finding, following in zip_longest(shown, shown[1:]):
            colour = "red" if finding["severity"] == "error" else "yellow"
            told = safe(f"{finding['where']}: {finding['what']}")
            console.print(f"[{colour}]{finding['severity']}[/{colour}] {check}: {told}")
            if finding["remedy"] and (following is None or following["remedy"] != finding["remedy"]):
                console.print(f"  {safe(finding['remedy'])}")
        if len(own) > SHOWN_FINDINGS:
            console.print(f"and {len(own) - SHOWN_FINDINGS:,} more of {check}; --output FILE writes them all")
    _show_verdicts(console, result)


def _show_verdicts(console: WordWrapped, result: Mapping[str, Any]) -> None:
    verdicts: Mapping[str, str] = result["verdicts"]
    styles = {"ok": ("green", "would work"), "would fail": ("red", "would fail")}
    styles |= {"wrong figures": ("red", "would run, but the figures would be wrong")}
    for verdict, (colour, words) in styles.items():
        if commands := [command for command, own in verdicts.items() if own == verdict]:
            console.print(f"[{colour}]{', '.join(commands)}[/{colour}]: {words}")
    if result["verdict"] == "sound" and "would fail" not in verdicts.values():
        console.print("No errors")


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
        name, size = safe(run["name"]), f"{run['bytes'] / 2**20:,.0f} MB"
        told = {
            "data set": run["dataset"] or "",
            "when": run["created"][:16].replace("T", " ") + " UTC" if run["created"] else "",
        }
        table.add_row(name, run["stage"], run["state"], epochs, best, size, *(safe(told[key]) for key in wide))
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
        table.add_row(safe(name), *cells)
    _stdout().print(table)


def show_bench(result: Mapping[str, Any]) -> None:
    """The benchmark's table: medians an item, ratios, peak memory, the floor's share of our time; then its notes."""
    rate, copied = result["product_flops"] / 1e9, result["copy_bytes_per_s"] / 1e9
    where = (
        f"{result['device']}, {counted(result['threads'], 'thread')}, {rate:,.0f} GFLOP/s, copies {copied:,.0f} GB/s"
    )
    table = Table(
        title=f"Medians of {counted(result['repeats'], 'run')}; {where}",
        title_justify="left",
        box=box.SIMPLE,
        padding=0,
    )
    for name in ("", "ours", "baseline", "ratio", "memory of both", "floor"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    notes = []
    for row in result["rows"]:
        sides = [side for side in (row["ours"], row["baseline"]) if side is not None]
        each = [_seconds(side["median_s"] / count) for side, count in zip(sides, row["items"], strict=False)]
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:,.{2 if row['ratio'] < 10 else 0}f}"
        memory = " / ".join("–" if (used := side["memory_bytes"]) is None else f"{used / 2**20:,.0f}" for side in sides)
        share = "" if row["share_of_floor"] is None else f"{row['share_of_floor']:.0%}"
        table.add_row(safe(row["name"]), each[0], each[1] if len(each) > 1 else "", ratio, f"{memory} MB", share)
        if row["disagreement"]:
            notes.append(f"{row['name']}: no ratio, the sides disagree: {row['disagreement']}")
        if row["floor"]:
            notes.append(f"{row['name']}: the floor is {row['floor']}")
        if (spread := max(side["most_s"] / side["least_s"] for side in sides)) > NOISY:
            notes.append(f"{row['name']}: noisy, the slowest run took {spread:.1f} times the fastest")
    console = _stdout()
    console.print(table)
    for note in notes:
        console.print(safe(note))


def _seconds(value: float) -> str:
    size, unit = next(
        (size, unit) for size, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")) if value >= size or size < 1e-5
    )
    return f"{value / size:.3g} {unit}"


def _stdout() -> WordWrapped:
    return WordWrapped()


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        lists = {key: f"[{', '.join(map(printable, part))}]" for key, part in value.items() if isinstance(part, list)}
        return ", ".join(f"{printable(key)} {lists.get(key) or _in_words(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ("\n  " if len(value) > 1 else "") + "\n  ".join(_in_words(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else printable(value)
