"""A sweep's table as Markdown, LaTeX and CSV, as papers print it."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from mlcl_cli.atomic_files import require_replaceable, write_files
from mlcl_cli.workflows.sweep_table import Row, SweepResult, SweepTable

SIGNATURE = "mlcl sweep"
LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "[": "{[}", "]": "{]}",  # after a line's end, LaTeX would take a bracket for an argument
}  # fmt: skip
ABBREVIATIONS = (("recall_subset@", "Rs@"), ("recall@", "R@"), ("map@", "mAP@"), ("average/", "avg. "), ("_", " "))


class Format(StrEnum):
    """The formats of a table, by their options."""

    MARKDOWN = "--markdown"
    LATEX = "--latex"
    CSV = "--csv"


def require_files(files: Mapping[Format, Path]) -> None:
    """Raise UsageError where a file exists that is not such a table."""
    for option, path in files.items():
        require_replaceable(path, "dataset,protocol," if option is Format.CSV else SIGNATURE, "a table")


def write_tables(result: SweepResult, files: Mapping[Format, Path]) -> None:
    """Write the tables. Raises MachineError where a file cannot be written."""
    if files:
        write_files({path: FORMATS[option](result).encode() for option, path in files.items()})


def short_keys(keys: Sequence[str]) -> list[str]:
    """The last parts of the keys, where these are unambiguous."""
    lasts = [key.rpartition(".")[2] for key in keys]
    return [last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)]


def metric_label(key: str) -> str:
    """A metric's name as the head of a column: R@10 for recall@10."""
    for long, short in ABBREVIATIONS:
        key = key.replace(long, short)
    return key


def caption(table: SweepTable) -> str:
    """What the table shows, in words."""
    if len(table.seeds) == 1:
        what = f"seed {table.seeds[0]}"
    else:
        what = f"mean ± standard deviation over {len(table.seeds)} seeds ({', '.join(map(str, table.seeds))})"
    text = f"{table.dataset}, protocol {table.protocol}, {table.queries:,} queries, in percent; {what}"
    if any(row.differences for row in table.rows):
        text += (
            "; † differs from the first row, p < 0.05 (paired bootstrap over queries, Holm's correction over the rows)"
        )
    elif table.without_significance:
        text += f"; no significance: {table.without_significance}"
    return text


def _markdown(result: SweepResult) -> str:
    parts = []
    for table in result.tables:
        heads = [*short_keys(result.keys), *map(metric_label, table.metrics)]
        aligned = ["---"] * len(result.keys) + ["---:"] * len(table.metrics)

        def cell(row: Row, key: str, table: SweepTable = table) -> str:
            text = str(row.metrics[key])
            text = f"**{text}**" if table.is_best(row, key) else text
            return text + ("†" if row.is_significant(key) else "")

        rows = [
            [*(f"`{value}`" for value in row.values.values()), *(cell(row, key) for key in table.metrics)]
            for row in table.rows
        ]
        lines = [f"| {' | '.join(cells)} |" for cells in (heads, aligned, *rows)]
        parts.append("\n".join([f"<!-- {SIGNATURE} {result.command} -->", "", *lines, "", f"{caption(table)}.", ""]))
    return "\n".join(parts)


def _latex(result: SweepResult) -> str:
    parts = []
    for table in result.tables:
        heads = [*short_keys(result.keys), *map(metric_label, table.metrics)]
        rows = [
            [*map(_escaped, row.values.values()), *(_latex_cell(table, row, key) for key in table.metrics)]
            for row in table.rows
        ]
        head, *lines = [f"{' & '.join(cells)} \\\\" for cells in ([*map(_escaped, heads)], *rows)]
        columns = "l" * len(result.keys) + "r" * len(table.metrics)
        parts += [
            f"% {SIGNATURE} {result.command}; needs \\usepackage{{booktabs}}",
            f"% {caption(table)}",
            f"\\begin{{tabular}}{{{columns}}}",
            *("\\toprule", head, "\\midrule", *lines, "\\bottomrule", "\\end{tabular}", ""),
        ]
    return "\n".join(parts)


def _latex_cell(table: SweepTable, row: Row, key: str) -> str:
    spread = row.metrics[key]
    mean = f"{spread.mean:.2f}"
    mean = f"\\mathbf{{{mean}}}" if table.is_best(row, key) else mean
    deviation = "" if spread.sd is None else f" \\pm {spread.sd:.2f}"
    dagger = "^{\\dagger}" if row.is_significant(key) else ""
    return f"${mean}{deviation}{dagger}$"


def _escaped(text: str) -> str:
    return re.sub(r"[&%$#_{}\\~^\[\]]", lambda match: LATEX[match[0]], text)


def _csv(result: SweepResult) -> str:
    """Unrounded figures, with a column for the mean, the deviation, the difference and the p-value of each metric."""
    rows = []
    for table in result.tables:
        for row in table.rows:
            cells: dict[str, object] = {"dataset": table.dataset, "protocol": table.protocol, **row.values}
            cells["seeds"] = len(row.runs)
            for key, spread in row.metrics.items():
                difference = row.differences[key] if row.differences else None
                cells |= {
                    f"{key} mean": spread.mean,
                    f"{key} sd": spread.sd,
                    f"{key} difference": difference and difference.value,
                    f"{key} low": difference and difference.interval.low,
                    f"{key} high": difference and difference.interval.high,
                    f"{key} p": difference and difference.adjusted,
                }
            rows.append(cells)
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(key for row in rows for key in row), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


FORMATS: Mapping[Format, Callable[[SweepResult], str]] = {
    Format.MARKDOWN: _markdown,
    Format.LATEX: _latex,
    Format.CSV: _csv,
}
