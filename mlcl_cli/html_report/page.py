"""Everything on the page, from runs and what was studied of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from itertools import pairwise
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mlcl_cli.html_report.analysis import TOP, Analysis, QueryResult
from mlcl_cli.html_report.curves import Line, Panel, draw_moves, draw_panel, merged
from mlcl_cli.html_report.thumbnails import Thumbnail
from mlcl_cli.runs.logs import terms_of
from mlcl_cli.runs.summary import BestCheckpoint, RunSummary

SAMPLES = {
    "hits": f"Hits, drawn by lot: the target is among the first {TOP}",
    "misses": f"Misses, drawn by lot: the target is not among the first {TOP}",
    "hardest": "Hardest: the target is ranked last of all",
    "easiest": "Easiest: the target is first, and by the widest margin",
}
LEARNED = {"temperature": "τ of mCCL", "temperature_sscl": "τ of SSCL"}
SAME = 0.005  # percent: below what two digits show

Picture = tuple[str, str]  # data set and image name


@dataclass(frozen=True)
class Reported:
    """A run: its summary (`run.json`), the rows of its log, and its best checkpoint's analysis, or why there is none.

    `number` tells it from the others on the page, `seconds` is what its training took, `profile` the resolved YAML,
    `commands` make it again and evaluate it.
    """

    number: int
    name: str
    stage: str
    state: str
    summary: RunSummary
    rows: Sequence[Mapping[str, float]]
    seconds: float
    profile: str
    commands: Mapping[str, str]
    analysis: Analysis | None = None
    missing: str = ""
    fingerprint: str | None = None

    @property
    def anchor(self) -> str:
        """Its place on the page."""
        return f"run-{self.number}"

    @property
    def label(self) -> str:
        """Its name where the stage must be told, too."""
        return f"{self.stage}/{self.name}"

    @property
    def metric(self) -> str:
        """The figure that the run is judged by."""
        return str(next(iter(self.summary.bests)))

    @property
    def best(self) -> BestCheckpoint:
        """Epoch, score and all metrics of the best checkpoint."""
        return self.summary.bests[self.metric]

    @property
    def difference(self) -> float:
        """How far the figures of the analysis are from those that the run logged, in percent; 0 where they agree."""
        if self.analysis is None:
            return 0.0
        found = self.analysis.figures.metrics
        widest: float = max(abs(found[name] - value) for name, value in self.best.metrics.items())
        return 0.0 if widest < SAME else widest

    @property
    def curves(self) -> list[Markup]:
        """Loss and terms, recalls, temperatures, level weight: what was logged of them."""
        last = self.rows[-1] if self.rows else {}
        terms = {name: name.replace("_", " ") for name in terms_of(last) if name not in self.best.metrics}
        terms = terms if len(terms) > 1 else {}
        shown = headlines(self.best.metrics)
        subset = {name: name for name in shown if name.startswith("recall_subset@")}
        wanted = [
            ("loss", "Loss and its terms, as they are summed" if terms else "Loss", "loss", {"loss": "loss"} | terms),
            ("recall", "Validation", "percent", {name: name for name in shown if name not in subset}),
            ("subset", "Validation, among the image set", "percent", subset),
            ("temperature", "Temperatures", "τ", LEARNED),
            ("weight", "Level weight w: high 2w, mid 2 − 2w", "w", {"level_weight": "w"}),
        ]
        panels = []
        for name, title, unit, lines in wanted:
            drawn = [line for key, label in lines.items() if (line := merged(self.rows, key, label)) is not None]
            if drawn:
                panels.append(Panel(f"{self.anchor}-{name}", title, unit, drawn, self.best.epoch))
        return [figure_of(panel) for panel in panels]


class Move(NamedTuple):
    """A query whose target one run ranks otherwise than the run before it."""

    query: QueryResult
    before: int
    after: int


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same queries; `ups` and `downs` are the moves that matter most, the widest first."""

    before: Reported
    after: Reported
    count: int

    @cached_property
    def moves(self) -> list[Move]:
        """Every query that both rank."""
        assert self.before.analysis is not None
        assert self.after.analysis is not None
        pairs = zip(self.before.analysis.asked, self.after.analysis.asked, strict=True)
        return [Move(b, a.rank, b.rank) for a, b in pairs if a.rank is not None and b.rank is not None]

    @property
    def ups(self) -> list[Move]:
        """Targets that rose by the widest ratio."""
        found = [move for move in self.moves if move.after < move.before]
        return sorted(found, key=lambda move: move.after / move.before)[: self.count]

    @property
    def downs(self) -> list[Move]:
        """Targets that fell by the widest ratio."""
        found = [move for move in self.moves if move.after > move.before]
        return sorted(found, key=lambda move: move.before / move.after)[: self.count]

    @property
    def counts(self) -> dict[str, int]:
        """How many moved which way, and over the line between hit and miss."""
        moves = self.moves
        return {
            "better": sum(move.after < move.before for move in moves),
            "same": sum(move.after == move.before for move in moves),
            "worse": sum(move.after > move.before for move in moves),
            "won": sum(move.after <= TOP < move.before for move in moves),
            "lost": sum(move.before <= TOP < move.after for move in moves),
        }

    @property
    def drawing(self) -> Markup:
        """All moves in one picture."""
        name = f"moves-{self.before.number}-{self.after.number}"
        return Markup(draw_moves(name, [move.before for move in self.moves], [move.after for move in self.moves]))


@dataclass(frozen=True)
class Group:
    """Runs whose figures can be compared: one data set, one protocol."""

    number: int
    dataset: str
    protocol: str
    runs: Sequence[Reported]
    sample: int

    @property
    def metrics(self) -> list[str]:
        """The protocol's figures, in its order."""
        return list(self.runs[0].best.metrics)

    @property
    def best_run(self) -> Reported:
        """The one with the highest score; of several the last."""
        return max(self.runs, key=lambda run: (run.best.score, run.number))

    def highest(self, metric: str) -> float:
        """The best of the runs by `metric`."""
        return max(float(run.best.metrics[metric]) for run in self.runs)

    @property
    def curves(self) -> list[Markup]:
        """Losses and scores of runs of the same stage, one over the other."""
        drawn = []
        for stage in dict.fromkeys(run.stage for run in self.runs):
            runs = [run for run in self.runs if run.stage == stage]
            if len(runs) < 2:
                continue
            for key, title in (("loss", "Loss"), (runs[0].metric, runs[0].metric)):
                lines: list[Line] = [line for run in runs if (line := merged(run.rows, key, run.name)) is not None]
                unit = "loss" if key == "loss" else "percent"
                name = f"group-{self.number}-{stage}-{'loss' if key == 'loss' else 'score'}"
                drawn.append(figure_of(Panel(name, f"{title}, {stage}", unit, lines)))
        return drawn

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Each run with the one before it, where both were studied on the same queries."""
        studied = [run for run in self.runs if run.analysis is not None]
        pairs = pairwise(studied)
        return [Comparison(a, b, self.sample) for a, b in pairs if _queries(a) == _queries(b)]


@dataclass(frozen=True)
class Page:
    """The runs of a report, and small copies of the pictures that it shows."""

    title: str
    written: str
    version: str
    runs: Sequence[Reported]
    sample: int
    pictures: Mapping[Picture, Thumbnail] = field(default_factory=dict)

    @cached_property
    def groups(self) -> list[Group]:
        """The runs by data set and protocol, in order of their first."""
        keys = list(dict.fromkeys((run.summary.dataset, run.summary.protocol) for run in self.runs))
        return [
            Group(n, *key, [r for r in self.runs if (r.summary.dataset, r.summary.protocol) == key], self.sample)
            for n, key in enumerate(keys)
        ]

    def wanted(self) -> set[Picture]:
        """The pictures that the page will show."""
        return {(group.dataset, name) for group in self.groups for name in _shown(group)}

    def html(self) -> str:
        """The whole page: one file that needs nothing else."""
        place = files("mlcl_cli.html_report")
        read = {name: (place / name).read_text("utf-8") for name in ("page.html.j2", "style.css", "script.js")}
        engine = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        engine.filters["percent"] = lambda value: f"{value:.2f}"
        numbers = {picture: number for number, picture in enumerate(sorted(self.pictures))}
        return engine.from_string(read["page.html.j2"]).render(
            page=self,
            style=Markup(read["style.css"]),
            script=Markup(read["script.js"]),
            numbers=numbers,
            samples=SAMPLES,
            top=TOP,
            headlines=headlines,
        )


def headlines(metrics: Mapping[str, float]) -> list[str]:
    """The figures that a protocol's papers print: of several categories the averages, else all but the lesser means."""
    averages = [name for name in metrics if name.startswith("average/")]
    return averages or [name for name in metrics if name not in ("harmonic_mean", "geometric_mean")]


def figure_of(panel: Panel) -> Markup:
    """A picture with its title below."""
    return Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(Markup(draw_panel(panel)), panel.title)


def _queries(run: Reported) -> list[tuple[str, object]]:
    return [(query.part, query.triplet) for query in run.analysis.asked] if run.analysis else []


def _shown(group: Group) -> Iterator[str]:
    for run in group.runs:
        for number, top in (run.analysis.tops if run.analysis else {}).items():
            assert run.analysis is not None
            yield from _ends(run.analysis.asked[number])
            yield from (found.name for found in top)
    for pair in group.comparisons:
        for move in (*pair.ups, *pair.downs):
            yield from _ends(move.query)


def _ends(query: QueryResult) -> Iterator[str]:
    yield query.triplet.reference
    if query.triplet.target is not None:
        yield query.triplet.target
