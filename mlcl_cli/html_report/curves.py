"""Curves as SVG that takes its colours from the page it stands in."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

SERIES = 6  # colours that the page defines; later lines take them again with another dash
DASHES = ("-", "--", ":", "-.")
FEW = 12  # points: so few are marked one by one
WIDTH, HEIGHT = 4.6, 2.9  # inches, with a legend of up to three lines
COLUMNS, LEGEND_LINE = 2, 0.16
# Stand-ins for what the page's style sheet decides; matplotlib knows no variables.
INK, RULE = "#010101", "#020202"
_VARIABLES = {INK: "var(--ink)", RULE: "var(--rule)"} | {f"#0a0b{n:02x}": f"var(--series-{n})" for n in range(SERIES)}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "path.simplify": False,
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a panel: values at epochs."""

    label: str
    epochs: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines in one picture. `name` is unique on the page; `best` marks an epoch."""

    name: str
    title: str
    unit: str
    lines: Sequence[Line]
    best: int | None = None

    @property
    def told(self) -> str:
        """The picture in words, for those who do not see it."""
        ends = [
            f"{line.label} from {line.values[0]:.4g} in epoch {line.epochs[0]:,} to {line.values[-1]:.4g} in epoch "
            f"{line.epochs[-1]:,}"
            for line in self.lines
        ]
        return f"{self.title}: {'; '.join(ends)}"


def draw_panel(panel: Panel) -> str:
    """An SVG element. Line n of the panel is the group `<name>-line-<n>`, one vertex a value, in order."""
    with _style(panel.name):
        legend = math.ceil(len(panel.lines) / COLUMNS) * LEGEND_LINE
        figure = Figure(figsize=(WIDTH, HEIGHT + max(0.0, legend - 3 * LEGEND_LINE)), layout="constrained")
        axes = figure.add_subplot()
        for number, line in enumerate(panel.lines):
            colour, dash = f"#0a0b{number % SERIES:02x}", DASHES[number // SERIES % len(DASHES)]
            marker = "o" if len(line.epochs) <= FEW else ""
            (drawn,) = axes.plot(line.epochs, line.values, dash, color=colour, lw=1.6, marker=marker, ms=3.5)
            drawn.set_gid(f"{panel.name}-line-{number}")
            drawn.set_label(line.label)
        if panel.best is not None:
            axes.axvline(panel.best, color=INK, lw=0.8, ls=":")
        axes.set_xlabel("epoch" if panel.best is None else "epoch; dotted: the best")
        axes.set_ylabel(panel.unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        if len(panel.lines) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=COLUMNS)
        return _svg(figure, panel.name, panel.told)


def draw_moves(name: str, before: Sequence[int], after: Sequence[int]) -> str:
    """Where targets went: how many queries have one rank before and another after, both on scales of powers of two."""
    counts: dict[tuple[int, int], int] = {}
    for one, other in zip(before, after, strict=True):
        place = (one - 1).bit_length(), (other - 1).bit_length()
        counts[place] = counts.get(place, 0) + 1
    most, last = max(counts.values()), max(max(place) for place in counts) + 1
    with _style(name):
        figure = Figure(figsize=(WIDTH, 0.8 * WIDTH), layout="constrained")
        axes = figure.add_subplot()
        for (x, y), count in sorted(counts.items()):
            colour = f"#0a0b{2 if y < x else 1 if y > x else 0:02x}"
            axes.bar(x, 1, 1, y - 0.5, color=colour, alpha=0.15 + 0.8 * (count / most) ** 0.5)
            if count >= most / 20:
                axes.text(x, y, f"{count:,}", ha="center", va="center", fontsize=7)
        _rank_scale(axes, last)
        told = f"{sum(n for (x, y), n in counts.items() if y < x):,} targets moved up by a power of two or more, "
        told += f"{sum(n for (x, y), n in counts.items() if y > x):,} down"
        return _svg(figure, name, told)


def _rank_scale(axes: Axes, last: int) -> None:
    ticks = range(0, last, max(1, last // 6))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(list(ticks), [f"{2**tick:,}" for tick in ticks])
    axes.set(xlabel="rank before", ylabel="rank after", xlim=(-0.5, last - 0.5), ylim=(-0.5, last - 0.5))
    axes.set_axisbelow(True)


def _style(name: str) -> Any:
    """`name` makes the identifiers inside a picture differ from those of the others on the page."""
    return mpl.rc_context(_STYLE | {"svg.hashsalt": name})


def _svg(figure: Figure, name: str, told: str) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)  # the page's own
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used or m[1].startswith(f"{name}-line") else "", text)
    label = told.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg role="img" aria-label="{label}" \1>', text, count=1)


def merged(rows: Sequence[Mapping[str, float]], name: str, label: str) -> Line | None:
    """The line of a logged figure, where it was logged."""
    found = [(int(row["epoch"]), row[name]) for row in rows if row.get(name) is not None]
    return Line(label, [epoch for epoch, _ in found], [value for _, value in found]) if found else None
