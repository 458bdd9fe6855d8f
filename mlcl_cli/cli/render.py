"""Results as people and scripts read them, on stdout, and errors, on stderr."""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console, OverflowMethod
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mlcl_cli.errors import MlclError
from mlcl_cli.formatting import counted, duration, size
from mlcl_cli.streams import printable, printable_json

if TYPE_CHECKING:  # they import torch
    from mlcl_cli.workflows.bench import BenchResult
    from mlcl_cli.workflows.compare import Comparison
    from mlcl_cli.workflows.demo import DemoResult, DemoSearch
    from mlcl_cli.workflows.findings import CheckReport, Finding
    from mlcl_cli.workflows.make_triplets import MadeTriplets

NOISY = 1.5
SHOWN_FINDINGS = 10
SHOWN_VALUES = 20
SHOWN_ABOVE = ("command", "dataset", "protocol", "metrics", "intervals", "versions")
COMPUTED = ("device", "precision", "inference_weights", "image", "data")  # one line for all of them
VERDICTS = {
    "ok": ("green", "would work"),
    "would fail": ("red", "would fail"),
    "wrong figures": ("red", "would run, but the metrics would be wrong"),
}
_WORD = re.compile(r"\S+\s*|\s+")


def new_console(*, stderr: bool = False) -> Console:
    """A console that leaves text as it is: no colors of its own, no emoji, no line breaks."""
    return Console(stderr=stderr, highlight=False, soft_wrap=True, emoji=False)


def print_markup(console: Console, markup: str) -> None:
    """Print; on a terminal, break lines between words only, so that paths stay whole, to be read and copied."""
    text = Text.from_markup(markup, emoji=False)
    if console.is_terminal:
        parts = [line.divide(_breaks(line.plain, console.width)) for line in text.split("\n", allow_blank=True)]
        for part in (part for line in parts for part in line[:-1]):
            part.rstrip()
        text = Text("\n").join(part for line in parts for part in line)
    console.print(text)


def _breaks(line: str, width: int) -> list[int]:
    """Where to break `line`, in characters; widths are in cells."""
    breaks, column = [], 0
    for word in _WORD.finditer(line):
        if column and column + cell_len(word[0].rstrip()) > width:
            breaks.append(word.start())
            column = 0
        column += cell_len(word[0])
    return breaks


def safe(text: object) -> str:
    """`text` as rich markup that prints as itself, on one line, its control characters escaped."""
    return escape(printable(text))


def say(text: str) -> None:
    """Print one line for people on stdout."""
    print_markup(new_console(), safe(text))


def show_error(error: MlclError) -> None:
    """Print one line (a profile's errors: one each) on stderr."""
    lines = "\n".join(safe(line) for line in error.lines)
    print_markup(new_console(stderr=True), f"[red]error:[/red] {lines}")


def show_json(result: Mapping[str, object]) -> None:
    """Print one JSON object on stdout."""
    ascii_only = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(result, ensure_ascii=ascii_only, allow_nan=False)
    sys.stdout.write(f"{printable_json(text)}\n")


def show_result(result: Mapping[str, object]) -> None:
    """Print the metrics as a table, then a line for each of the other facts."""
    hidden: tuple[str, ...] = ("command",)
    if isinstance(metrics := result.get("metrics"), Mapping):
        bounds = result.get("intervals")
        bounds = bounds if isinstance(bounds, Mapping) else {}
        rows = [
            [safe(name), f"{value:.2f}", *([f"{bounds[name][0]:.2f} to {bounds[name][1]:.2f}"] if bounds else [])]
            for name, value in metrics.items()
        ]
        show_table(
            rows,
            left=["metric"],
            right=["%", *(["95% interval"] if bounds else [])],
            title=f"{result['dataset']}, protocol {result['protocol']}",
        )
        hidden = SHOWN_ABOVE
    computed = {key.replace("_", " "): result[key] for key in COMPUTED if result.get(key) is not None}
    facts = {key: value for key, value in result.items() if key not in (*hidden, *COMPUTED)}
    for key, value in {**facts, "computed with": computed or None}.items():
        if value is not None:
            print_markup(new_console(), f"{safe(key.replace('_', ' '))}: {escape(_in_words(value))}")


def show_comparison(result: Mapping[str, object]) -> None:
    """Print the metrics under each protocol side by side, which systems use which, then the other facts."""
    protocols = result["protocols"]
    assert isinstance(protocols, Mapping)
    metrics = next(iter(protocols.values()))["metrics"]
    rows = [[safe(name), *(f"{values['metrics'][name]:.2f}" for values in protocols.values())] for name in metrics]
    short = [safe(name.removeprefix(f"{result['dataset']}-")) for name in protocols]
    show_table(rows, left=["metric"], right=short, title=f"{result['dataset']}, in percent", whole=True)
    for name, values in protocols.items():
        queries, gallery = _in_words(values["queries"]), _in_words(values["gallery"])
        systems = f"; {values['systems']}" if values["systems"] else ""
        say(f"{name}: queries {queries}; gallery {gallery}{systems}")
    show_result({key: value for key, value in result.items() if key not in ("protocols", *SHOWN_ABOVE)})


def show_differences(result: "Comparison") -> None:
    """Print each metric of both models, the difference with its interval, and the p-values."""
    evaluation = result.first.evaluation
    rows = [
        [
            safe(name),
            f"{change.first:.2f}",
            f"{change.second:.2f}",
            f"{change.value:+.2f}",
            f"{change.interval.low:+.2f} to {change.interval.high:+.2f}",
            *(f"{p:.4f}" for p in (change.p, change.adjusted)),
        ]
        for name, change in result.differences.items()
    ]
    right = ["first", "second", "difference", "95% interval", "p", "p (Holm)"]
    queries = counted(len(evaluation.split.triplets), "query")
    title = f"{evaluation.split.dataset}, protocol {evaluation.protocol.label}, {queries}, in percent"
    show_table(rows, left=["metric"], right=right, title=title)
    say(f"first: {result.first.source}")
    say(f"second: {result.second.source}")


def show_descriptions(result: Mapping[str, object]) -> None:
    """Print each protocol as a paragraph."""
    protocols = result["protocols"]
    assert isinstance(protocols, Mapping)
    for sentences in protocols.values():
        say(" ".join(sentences))


def show_check(result: "CheckReport") -> None:
    """Print what was looked at, the first findings of each check, and the verdict."""
    by_check: dict[str, list[Finding]] = {check: [] for check in result.looked_at}
    for finding in sorted(result.findings, key=lambda finding: finding.severity):
        by_check.setdefault(finding.check, []).append(finding)
    rows = []
    for check, findings in by_check.items():
        looked = result.looked_at.get(check, "")
        looked = Path(looked).name if Path(looked).is_absolute() else looked  # a narrow table would cut a path
        counts = [sum(finding.severity == severity for finding in findings) for severity in ("error", "note")]
        rows.append([check, safe(looked), *(f"{count:,}" if count else "" for count in counts)])
    title = f"{result.dataset.name}: what a run needs"
    show_table(rows, left=["check", "checked"], right=["errors", "notes"], title=title)
    console = new_console()
    for check in sorted(by_check, key=lambda check: all(finding.severity == "note" for finding in by_check[check])):
        shown = by_check[check][:SHOWN_FINDINGS]
        for finding, following in zip_longest(shown, shown[1:]):
            color = "red" if finding.severity == "error" else "yellow"
            text = safe(f"{finding.where}: {finding.what}")
            print_markup(console, f"[{color}]{finding.severity}[/{color}] {check}: {text}")
            if finding.remedy and (following is None or following.remedy != finding.remedy):
                print_markup(console, f"  {safe(finding.remedy)}")
        if more := len(by_check[check]) - len(shown):
            say(f"and {more:,} more of {check}; --output FILE writes them all")
    for verdict, (color, words) in VERDICTS.items():
        if commands := [command for command, outcome in result.verdicts.items() if outcome == verdict]:
            print_markup(console, f"[{color}]{', '.join(commands)}[/{color}]: {words}")
    if result.is_sound and "would fail" not in result.verdicts.values():
        say("No errors")


def show_demo(result: "DemoResult") -> None:
    """Print the scores, the best of each data set in bold, and where everything is."""
    columns = list(dict.fromkeys(column for row in result.scores.values() for column in row))
    rows = []
    for name, scores in result.scores.items():
        best = max(scores.values())
        cells = (f"[bold]{score:.1f}[/bold]" if score == best else f"{score:.1f}" for score in map(scores.get, columns))
        rows.append([safe(name), *cells])
    show_table(rows, left=["data set"], right=columns, title="Recall in percent, mean of the protocol's recalls")
    say(f"Everything was written to {result.folder} in {duration(result.seconds)}")
    say(f"Open the report in a browser: {result.report}")
    program = ["mlcl"] if shutil.which("mlcl") else [sys.executable, "-m", "mlcl_cli"]  # after `make demo`
    say(f"Try the other commands on it: {shlex.join([*program, 'runs', '--profile', str(result.profile)])}")
    if result.catalog:
        say(f"To train from a product catalog, without annotated triplets, start in {result.catalog.parent}")
    if result.search:
        _show_demo_search(result.search)
        command = shlex.join([*program, "serve", "--profile", str(result.search.profile)])
        say(f"To search these products in a browser, run this and open the page that it names: {command}")


def _show_demo_search(search: "DemoSearch") -> None:
    names = list(search.hits[0].fields) if search.hits else []
    rows = [[safe(hit.id), *(safe(hit.fields[name]) for name in names), f"{hit.score:.3f}"] for hit in search.hits]
    title = f'A search of the drawn shoes: {search.item} + "{search.text}"'
    show_table(rows, left=["id", *names], right=["score"], title=title)


def show_made_triplets(result: "MadeTriplets") -> None:
    """Print how many triplets make each change and name each value, and what was not used."""
    show_table(
        [[safe(name), f"{count:,}"] for name, count in result.changes.items()], left=["change"], right=["triplets"]
    )
    rows = []
    for attribute, by_value in result.values.items():
        values = sorted(by_value, key=by_value.__getitem__, reverse=True)
        rows += [[safe(attribute), safe(value), f"{by_value[value]:,}"] for value in values[:SHOWN_VALUES]]
        if rest := values[SHOWN_VALUES:]:
            rows.append([safe(attribute), f"{len(rest):,} more", f"{sum(map(by_value.__getitem__, rest)):,}"])
    show_table(rows, left=["attribute", "new value"], right=["triplets"])
    products, counts = result.products, result.counts
    unused = [f"{counted(count, 'product')} without a value for {name}" for name, count in products.empty.items()]
    unused += [
        f"{counted(count, 'product')} with several values for {name}" for name, count in products.several.items()
    ]
    if counts.without_pair:
        unused.append(f"{counted(counts.without_pair, 'product')} without a counterpart")
    for name, count in result.ambiguous.items():
        if count:
            unused.append(f"{counted(count, 'change')} of {name} with too many equally right targets")
    for line in unused:
        say(f"Not used: {line}")
    train, val = (counted(counts.splits[split], "triplet") for split in ("train", "val"))
    say(f"Wrote {result.output}: {train} in train, {val} in val, from {counted(products.rows, 'product')}")


def show_bench(result: "BenchResult") -> None:
    """Print medians per item, ratios, peak memory, the floor's share of our time; then notes."""
    rows, notes = [], []
    for row in result.rows:
        sides = [row.ours] if row.baseline is None else [row.ours, row.baseline]
        each = [_seconds(side.median_s / count) for side, count in zip(sides, row.items, strict=False)]
        ratio = "–" if row.ratio is None else f"{row.ratio:,.{2 if row.ratio < 10 else 0}f}"
        memory = " / ".join("–" if side.memory_bytes is None else size(side.memory_bytes) for side in sides)
        share = "" if row.floor_s is None else f"{row.floor_s / row.ours.median_s:.0%}"
        rows.append([safe(row.name), each[0], each[1] if len(each) > 1 else "", ratio, memory, share])
        if row.disagreement:
            notes.append(f"{row.name}: no ratio, the sides disagree: {row.disagreement}")
        if row.floor:
            notes.append(f"{row.name}: the floor is {row.floor}")
        if (spread := max(side.most_s / side.least_s for side in sides)) > NOISY:
            notes.append(f"{row.name}: noisy, the slowest run took {spread:.1f} times the fastest")
    speed = f"{result.product_flops / 1e9:,.0f} GFLOP/s, copies {result.copy_bytes_per_s / 1e9:,.0f} GB/s"
    where = f"{result.device}, {counted(result.threads, 'thread')}, {speed}"
    title = f"Medians of {counted(result.repeats, 'run')}; {where}"
    columns = ["ours", "baseline", "ratio", "memory of both", "floor"]
    show_table(rows, left=[""], right=columns, title=title, whole=True)
    for note in notes:
        say(note)


def show_table(
    rows: Sequence[Sequence[str]], *, left: Sequence[str], right: Sequence[str], title: str = "", whole: bool = False
) -> None:
    """Print columns aligned to the `left` and then to the `right`; `whole` keeps each row on one line."""
    table = Table(title=safe(title) or None, title_justify="left", box=box.SIMPLE, padding=0)
    overflow: OverflowMethod = "ellipsis" if whole else "fold"
    for name in left:
        table.add_column(name, no_wrap=whole, overflow=overflow)
    for name in right:
        table.add_column(name, no_wrap=whole, overflow=overflow, justify="right")
    for row in rows:
        table.add_row(*row)
    new_console().print(table)


def _seconds(value: float) -> str:
    scale, unit = (1, "s") if value >= 1 else (1e-3, "ms") if value >= 1e-3 else (1e-6, "µs")
    return f"{value / scale:.3g} {unit}"


def _in_words(value: object) -> str:
    if isinstance(value, Mapping):
        if value and all(isinstance(part, Mapping) for part in value.values()):
            return _lines([f"{printable(key)}: {_in_words(part)}" for key, part in value.items()])
        lists = {key: f"[{', '.join(map(printable, part))}]" for key, part in value.items() if isinstance(part, list)}
        return ", ".join(f"{printable(key)} {lists.get(key) or _in_words(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return _lines([_in_words(part) for part in value])
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else printable(value)


def _lines(texts: Sequence[str]) -> str:
    return ("\n  " if len(texts) > 1 else "") + "\n  ".join(texts)
