"""A run as the page shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from markupsafe import Markup

from mlcl_cli.data.protocols import protocol_label
from mlcl_cli.html_report.analysis import Analysis
from mlcl_cli.html_report.curves import Panel, draw_figure, logged_line
from mlcl_cli.html_report.naming import KINDS, TERMS, spoken, without_places
from mlcl_cli.retrieval.bootstrap import Interval
from mlcl_cli.runs.listing import StoredRun
from mlcl_cli.runs.logs import TIMES, read_log, terms_of
from mlcl_cli.runs.summary import MAX_BYTES, BestCheckpoint, RunSummary
from mlcl_cli.safe_reading import open_regular

TEMPERATURES = {"temperature": "τ of mCCL", "temperature_sscl": "τ of SSCL"}
NEGLIGIBLE = 0.005  # percent: below what two digits show


@dataclass(frozen=True)
class ReportedRun:
    """A run with a best checkpoint, and the analysis of that checkpoint, or why there is none.

    `number` identifies it on the page, `name` says how it differs from the others, `setting` the same without the seed.
    `commands` repeat and evaluate it from the folder `place`. `inference_weights` are those that a combiner queries
    with, None without one.
    """

    number: int
    listed: StoredRun
    summary: RunSummary
    place: Path
    name: str = ""
    setting: str = ""
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
        """The resolved YAML without absolute paths; empty where it is missing or cannot be read."""
        try:
            with open_regular(self.listed.folder / "profile.yaml") as file:
                return self.portable(file.read(MAX_BYTES).decode(errors="replace"))
        except OSError:
            return ""

    def portable(self, text: str) -> str:
        """A text without absolute paths of this machine."""
        return without_places(text, self.place)

    @property
    def anchor(self) -> str:
        return f"run-{self.number}"

    @property
    def label(self) -> str:
        """STAGE/FOLDER, as commands take it."""
        return self.listed.name

    @property
    def kind(self) -> str:
        """What the run trains, in words."""
        return KINDS[self.listed.kind]

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

    def interval(self, metric: str) -> Interval | None:
        """The interval of a logged metric; None where the analysis differs from the log, or has too few queries."""
        if self.analysis is None or self.difference or self.analysis.intervals is None:
            return None
        return self.analysis.intervals[metric]

    @property
    def curves(self) -> list[Markup]:
        """Loss and terms, recalls, temperatures, level weight: as far as they were logged."""
        last = self.rows[-1] if self.rows else {}
        terms = {name: TERMS.get(name, name) for name in terms_of(last) if name not in self.best.metrics}
        terms = terms if len(terms) > 1 else {}
        shown = headlines(self.best.metrics)
        subset = {name: spoken(name) for name in shown if name.startswith("recall_subset@")}
        recalls = {name: spoken(name) for name in shown if name not in subset}
        charts = (
            ("loss", "Loss and the terms it sums" if terms else "Loss", "loss", {"loss": "loss"} | terms),
            ("recall", "Validation", "percent", recalls),
            ("subset", "Validation, within the image set", "percent", subset),
            ("temperature", "Temperatures", "τ", TEMPERATURES),
            (
                "weight",
                "Level weight w: the loss weights the high level by 2w, the mid level by 2 − 2w",
                "w",
                {"level_weight": "w"},
            ),
        )
        panels = [
            Panel(f"{self.anchor}-{name}", title, unit, lines, self.best.epoch)
            for name, title, unit, labels in charts
            if (lines := [line for key, label in labels.items() if (line := logged_line(self.rows, key, label))])
        ]
        return [draw_figure(panel) for panel in panels if panel.is_worthwhile]


def headlines(metrics: Mapping[str, float]) -> list[str]:
    """The metrics that papers report: averages over categories where there are, else all but the lesser means."""
    averages = [name for name in metrics if name.startswith("average/")]
    return averages or [name for name in metrics if name not in ("harmonic_mean", "geometric_mean")]
