"""Charts as SVG that takes its colors from the page around it."""

import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files

import matplotlib as mpl
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

SERIES = 6  # colors that the page defines; further lines reuse them with another dash
DASHES = ("-", "--", ":", "-.")
MAX_MARKED = 12  # the points of a line this short are marked
WIDTH, HEIGHT = 4.6, 2.9  # inches, with a legend of up to three lines
LEGEND_COLUMNS, LEGEND_LINE = 2, 0.16
LONG = 32  # characters of a label that need the whole width
# matplotlib knows no CSS variables, so these colors stand in for them.
INK, RULE = "#010101", "#020202"
_COLORS = [f"#0a0b{number:02x}" for number in range(SERIES)]
_VARIABLES = {INK: "var(--ink)", RULE: "var(--rule)"}
_VARIABLES |= {color: f"var(--series-{number})" for number, color in enumerate(_COLORS)}
with as_file(files(__package__) / "chart.mplstyle") as _path:
    _STYLE = mpl.rc_params_from_file(_path, use_default_template=False)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart: values at epochs."""

    label: str
    epochs: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart of lines. `name` is unique on the page; `best` marks an epoch."""

    name: str
    title: str
    unit: str
    lines: Sequence[Line]
    best: int | None = None

    @property
    def is_worthwhile(self) -> bool:
        """Whether a line has more than one point."""
        return any(len(line.epochs) > 1 for line in self.lines)

    @property
    def description(self) -> str:
        """The chart in words, for screen readers."""
        ends = [
            f"{line.label} from {line.values[0]:.4g} in epoch {line.epochs[0]:,} to {line.values[-1]:.4g} in epoch "
            f"{line.epochs[-1]:,}"
            for line in self.lines
        ]
        return f"{self.title}: {'; '.join(ends)}"


def logged_line(rows: Sequence[Mapping[str, float]], key: str, label: str) -> Line | None:
    """The line of a logged value, None where it was not logged."""
    logged = [row for row in rows if row.get(key) is not None]
    return Line(label, [int(row["epoch"]) for row in logged], [row[key] for row in logged]) if logged else None


def draw_figure(panel: Panel) -> Markup:
    """The chart with its title below, and its values for the page's script to show under the pointer."""
    lines = [
        {"label": line.label, "epochs": list(line.epochs), "values": [float(f"{value:.4g}") for value in line.values]}
        for line in panel.lines
    ]
    figure = Markup('<figure data-chart="{}" data-best="{}" data-lines=\'{}\'>{}<figcaption>{}</figcaption></figure>')
    return figure.format(panel.name, panel.best or "", htmlsafe_json_dumps(lines), draw_panel(panel), panel.title)


def draw_panel(panel: Panel) -> Markup:
    """An SVG element. Line n of the panel is the group `<name>-line-<n>`, one vertex per value, in order."""
    with mpl.rc_context(_STYLE | {"svg.hashsalt": panel.name}):  # identifiers differ between the charts of a page
        columns = 1 if any(len(line.label) > LONG for line in panel.lines) else LEGEND_COLUMNS
        legend = math.ceil(len(panel.lines) / columns) * LEGEND_LINE
        figure = Figure(figsize=(WIDTH, HEIGHT + max(0.0, legend - 3 * LEGEND_LINE)), layout="constrained")
        axes = figure.add_subplot()
        for number, line in enumerate(panel.lines):
            color, dash = _COLORS[number % SERIES], DASHES[number // SERIES % len(DASHES)]
            marker = "o" if len(line.epochs) <= MAX_MARKED else ""
            (curve,) = axes.plot(line.epochs, line.values, dash, color=color, lw=1.6, marker=marker, ms=3.5)
            curve.set_gid(f"{panel.name}-line-{number}")
            curve.set_label(line.label)
        if panel.best is not None:
            axes.axvline(panel.best, color=INK, lw=0.8, ls=":")
        axes.set(xlabel="epoch" if panel.best is None else "epoch (dotted: the best)", ylabel=panel.unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        if len(panel.lines) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=columns)
        return _svg(figure, panel.name, panel.description)


def draw_moves(name: str, before: Sequence[int], after: Sequence[int]) -> Markup:
    """An SVG element: how many targets moved from which rank to which, both on scales of powers of two."""
    counts = Counter(((x - 1).bit_length(), (y - 1).bit_length()) for x, y in zip(before, after, strict=True))
    most, size = max(counts.values()), max(map(max, counts)) + 1
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, 0.8 * WIDTH), layout="constrained")
        axes = figure.add_subplot()
        for (x, y), count in sorted(counts.items()):
            color = _COLORS[2 if y < x else 1 if y > x else 0]
            axes.bar(x, 1, 1, y - 0.5, color=color, alpha=0.15 + 0.8 * (count / most) ** 0.5)
            if count >= most / 20:
                axes.text(x, y, f"{count:,}", ha="center", va="center", fontsize=7)
        ticks = list(range(0, size, max(1, size // 6)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(ticks, [f"{2**tick:,}" for tick in ticks])
        axes.set(xlabel="rank before", ylabel="rank after", xlim=(-0.5, size - 0.5), ylim=(-0.5, size - 0.5))
        axes.set_axisbelow(True)
        up, down = (sum(n for (x, y), n in counts.items() if sign * y < sign * x) for sign in (1, -1))
        return _svg(figure, name, f"{up:,} targets moved up by a power of two or more, {down:,} down")


def _svg(figure: Figure, name: str, description: str) -> Markup:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)  # the page's own
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used or m[1].startswith(f"{name}-line") else "", text)
    head = rf'<svg role="img" aria-label="{escape(description)}" '
    return Markup(re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', lambda m: f"{head}{m[1]}>", text, count=1))
