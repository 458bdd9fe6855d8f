"""The page: runs with their figures, curves and retrieved images, side by side where they compare."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mlcl_cli.data.protocols import protocol_label
from mlcl_cli.html_report.analysis import TOP, Analysis, QueryResult
from mlcl_cli.html_report.curves import Panel, draw_moves, draw_panel, logged_line
from mlcl_cli.html_report.thumbnails import Thumbnail
from mlcl_cli.runs.listing import StoredRun
from mlcl_cli.runs.logs import TIMES, read_log, terms_of
from mlcl_cli.runs.summary import MAX_BYTES, BestCheckpoint, RunSummary
from mlcl_cli.safe_reading import open_regular

SAMPLES = {
    "hits": f"Random hits: the target is among the first {TOP}",
    "misses": f"Random misses: the target is not among the first {TOP}",
    "hardest": "Hardest queries: the target ranks lowest",
    "easiest": "Easiest queries: the target ranks first, by the widest margin",
}
TEMPERATURES = {"temperature": "τ of mCCL", "temperature_sscl": "τ of SSCL"}
NEGLIGIBLE = 0.005  # percent: below what two digits show

Embed = Callable[[Sequence[tuple[str, Path]]], Iterator[Thumbnail | None]]


@dataclass(frozen=True)
class ReportedRun:
    """A run with a best checkpoint, and the analysis of that checkpoint, or why there is none.

    `number` identifies it on the page, `commands` repeat and evaluate it. `inference_weights` are those that a combiner
    queries with, None without one.
    """

    number: int
    listed: StoredRun
    summary: RunSummary
    commands: Mapping[str, str] = field(default_factory=dict)
    analysis: Analysis | None = None
    missing: str = ""
    fingerprint: str | None = None
    inference_weights: str | None = None

    @cached_property
    def rows(self) -> Sequence[Mapping[str, float]]:
        return read_log(self.listed.folder)

    @property
    def seconds(self) -> float:
        return sum(row["seconds"] for row in read_log(self.listed.folder, TIMES))

    @property
    def profile(self) -> str:
        """The resolved YAML; empty where it is missing or cannot be read."""
        try:
            with open_regular(self.listed.folder / "profile.yaml") as file:
                return file.read(MAX_BYTES).decode(errors="replace")
        except OSError:
            return ""

    @property
    def anchor(self) -> str:
        return f"run-{self.number}"

    @property
    def label(self) -> str:
        return self.listed.name

    @property
    def protocol(self) -> str:
        return protocol_label(self.summary.protocol, pruned=bool(self.summary.pruned))

    @property
    def metric(self) -> str:
        return next(iter(self.summary.bests))

    @property
    def best(self) -> BestCheckpoint:
        """Epoch, score and all metrics of the best checkpoint."""
        return self.summary.bests[self.metric]

    @property
    def weights(self) -> Path:
        return self.listed.folder / self.best.checkpoint

    @property
    def difference(self) -> float:
        """How far the metrics of the analysis are from those that the run logged, in percent; 0 where they agree."""
        if self.analysis is None:
            return 0.0
        metrics = self.analysis.figures.metrics
        largest = max(abs(metrics[name] - value) for name, value in self.best.metrics.items())
        return 0.0 if largest < NEGLIGIBLE else largest

    @property
    def curves(self) -> list[Markup]:
        """Loss and terms, recalls, temperatures, level weight: as far as they were logged."""
        last = self.rows[-1] if self.rows else {}
        terms = {name: name.replace("_", " ") for name in terms_of(last) if name not in self.best.metrics}
        terms = terms if len(terms) > 1 else {}
        shown = headlines(self.best.metrics)
        subset = {name: name for name in shown if name.startswith("recall_subset@")}
        recalls = {name: name for name in shown if name not in subset}
        charts = (
            ("loss", "Loss and the terms it sums" if terms else "Loss", "loss", {"loss": "loss"} | terms),
            ("recall", "Validation", "percent", recalls),
            ("subset", "Validation, within the image set", "percent", subset),
            ("temperature", "Temperatures", "τ", TEMPERATURES),
            ("weight", "Level weight w: high 2w, mid 2 − 2w", "w", {"level_weight": "w"}),
        )
        return [
            _figure(Panel(f"{self.anchor}-{name}", title, unit, lines, self.best.epoch))
            for name, title, unit, labels in charts
            if (lines := [line for key, label in labels.items() if (line := logged_line(self.rows, key, label))])
        ]


@dataclass(frozen=True, slots=True)
class Move:
    """A query whose target is ranked by two runs."""

    query: QueryResult
    before: int
    after: int

    @property
    def ratio(self) -> float:
        return self.after / self.before


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same queries. The moves are sorted by ratio: those up come first."""

    before: ReportedRun
    after: ReportedRun
    moves: Sequence[Move]

    @classmethod
    def of(cls, before: ReportedRun, after: ReportedRun) -> "Comparison | None":
        """The comparison of two runs; None where they were not analyzed on the same queries."""
        if before.analysis is None or after.analysis is None:
            return None
        old, new = before.analysis.queries, after.analysis.queries
        if [(query.set_name, query.triplet) for query in old] != [(query.set_name, query.triplet) for query in new]:
            return None
        pairs = zip(old, new, strict=True)
        moves = [Move(a, a.rank, b.rank) for a, b in pairs if a.rank is not None and b.rank is not None]
        return cls(before, after, sorted(moves, key=lambda move: move.ratio))

    def ups(self, count: int) -> list[Move]:
        """The `count` targets that moved up by the largest ratio."""
        return [move for move in self.moves[:count] if move.ratio < 1]

    def downs(self, count: int) -> list[Move]:
        """The `count` targets that moved down by the largest ratio."""
        return [move for move in self.moves[: -count - 1 : -1] if move.ratio > 1]

    @property
    def counts(self) -> dict[str, int]:
        """How many targets moved each way, and how many entered and left the first TOP."""
        return {
            "higher": sum(move.ratio < 1 for move in self.moves),
            "same": sum(move.ratio == 1 for move in self.moves),
            "lower": sum(move.ratio > 1 for move in self.moves),
            "entered": sum(move.after <= TOP < move.before for move in self.moves),
            "left": sum(move.before <= TOP < move.after for move in self.moves),
        }

    @property
    def drawing(self) -> Markup:
        name = f"moves-{self.before.number}-{self.after.number}"
        return draw_moves(name, [move.before for move in self.moves], [move.after for move in self.moves])


@dataclass(frozen=True)
class Group:
    """Runs whose metrics compare: one data set, one protocol."""

    number: int
    dataset: str
    protocol: str
    runs: Sequence[ReportedRun]

    @property
    def best_run(self) -> ReportedRun:
        """The run with the highest score; of several the last."""
        return max(self.runs, key=lambda run: (run.best.score, run.number))

    def highest(self, metric: str) -> float:
        return max(run.best.metrics[metric] for run in self.runs)

    @property
    def curves(self) -> list[Markup]:
        """Losses and scores of the runs of each stage in one chart."""
        drawn = []
        for stage in dict.fromkeys(run.listed.stage for run in self.runs):
            runs = [run for run in self.runs if run.listed.stage == stage]
            score = runs[0].metric
            for kind, key, title, unit in (("loss", "loss", "Loss", "loss"), ("score", score, score, "percent")):
                lines = [line for run in runs if (line := logged_line(run.rows, key, run.listed.folder.name))]
                if len(runs) > 1 and lines:
                    name = f"group-{self.number}-{stage}-{kind}"
                    drawn.append(_figure(Panel(name, f"{title}, {stage}", unit, lines)))
        return drawn

    @property
    def comparisons(self) -> list[Comparison]:
        """Each analyzed run with the one before it, where both have the same queries."""
        pairs = pairwise(run for run in self.runs if run.analysis is not None)
        return [pair for before, after in pairs if (pair := Comparison.of(before, after))]


@dataclass(frozen=True)
class EmbeddedImages:
    """The images of a page: each is embedded once, at the end, and numbered where it is first used."""

    embed: Embed
    _numbers: dict[Path, int] = field(default_factory=dict)

    def number(self, path: Path) -> int:
        return self._numbers.setdefault(path, len(self._numbers))

    def thumbnails(self) -> Iterator[tuple[int, Thumbnail | None]]:
        """Every numbered image; None for one that cannot be read."""
        return zip(self._numbers.values(), self.embed([(path.name, path) for path in self._numbers]), strict=True)


@dataclass(frozen=True)
class Page:
    """The runs of a report; `shown` is how many queries or moves of each kind are shown."""

    title: str
    written: str
    version: str
    runs: Sequence[ReportedRun]
    shown: int

    @property
    def groups(self) -> list[Group]:
        """The runs by data set and protocol, in order of the first of each."""
        groups: dict[tuple[str, str], list[ReportedRun]] = {}
        for run in self.runs:
            groups.setdefault((run.summary.dataset, run.protocol), []).append(run)
        return [Group(number, *key, runs) for number, (key, runs) in enumerate(groups.items())]

    def html(self, embed: Embed) -> str:
        """The whole page, one file that needs nothing else; `embed` makes thumbnails of named image files."""
        folder = files("mlcl_cli.html_report")
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        environment.filters |= {"percent": "{:.2f}".format, "thousands": "{:,}".format}
        return environment.from_string((folder / "page.html.j2").read_text("utf-8")).render(
            page=self,
            style=Markup((folder / "style.css").read_text("utf-8")),
            script=Markup((folder / "script.js").read_text("utf-8")),
            embedded=EmbeddedImages(embed),
            samples=SAMPLES,
            top=TOP,
            headlines=headlines,
        )


def headlines(metrics: Mapping[str, float]) -> list[str]:
    """The metrics that papers report: averages over categories where there are, else all but the lesser means."""
    averages = [name for name in metrics if name.startswith("average/")]
    return averages or [name for name in metrics if name not in ("harmonic_mean", "geometric_mean")]


def _figure(panel: Panel) -> Markup:
    """A chart with its title below."""
    return Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(draw_panel(panel), panel.title)
