"""The page: what runs achieve, what they retrieve, and how they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from itertools import pairwise

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mlcl_cli.html_report.analysis import CHANCE, TOP, WHOLE, System
from mlcl_cli.html_report.comparison import Comparison
from mlcl_cli.html_report.curves import Panel, draw_figure, logged_line
from mlcl_cli.html_report.explorer import Explorer
from mlcl_cli.html_report.naming import LEVELS, Names, Spread, meaning, setting_keys, spoken, titled
from mlcl_cli.html_report.pictures import MAX_BYTES, Embed, Pictures
from mlcl_cli.html_report.reported_run import ReportedRun, headlines

SAMPLES = {
    "hits": f"Random hits: the target is among the first {TOP}",
    "misses": f"Random misses: the target is not among the first {TOP}",
    "hardest": "Hardest queries: the target ranks lowest",
    "easiest": "Easiest queries: the target ranks first, by the widest margin",
}
SYSTEMS = {CHANCE: "Chance", "image only": "Image only", "text only": "Text only", "sum": "Sum of image and text"}
ROOM_FOR_REST = 150_000  # bytes: style, script, numbers of pictures


@dataclass(frozen=True)
class Setting:
    """Runs that differ in the seed alone."""

    name: str
    runs: Sequence[ReportedRun]

    @property
    def best_run(self) -> ReportedRun:
        return best_of(self.runs)

    @cached_property
    def by_seed(self) -> Mapping[int, ReportedRun]:
        """The last run of each seed."""
        return {run.summary.seed: run for run in self.runs}

    def spread(self, metric: str) -> Spread | None:
        """The metric over the seeds; None for a single one."""
        values = [run.best.metrics[metric] for run in self.by_seed.values()]
        return Spread.of(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Group:
    """Runs whose metrics compare: one data set, one protocol. `shared` tells the settings that most of them share."""

    number: int
    dataset: str
    protocol: str
    runs: Sequence[ReportedRun]
    shared: str = ""

    @property
    def best_run(self) -> ReportedRun:
        return best_of(self.runs)

    @property
    def columns(self) -> list[str]:
        """The metrics of the table of runs, the deciding one first."""
        metric = self.best_run.metric
        return [metric, *(name for name in headlines(self.best_run.best.metrics) if name != metric)]

    def highest(self, metric: str) -> float:
        return max(run.best.metrics[metric] for run in self.runs)

    @cached_property
    def settings(self) -> list[Setting]:
        """The runs by setting, in order of the first of each."""
        by_key: dict[tuple[str, ...], list[ReportedRun]] = {}
        for key, run in zip(setting_keys([run.summary for run in self.runs]), self.runs, strict=True):
            by_key.setdefault(key, []).append(run)
        return [Setting(runs[0].setting, runs) for runs in by_key.values()]

    @property
    def systems(self) -> list[System]:
        """What the best run is compared with, and the run itself, under names for people."""
        analysis = self.best_run.analysis
        if analysis is None:
            return []
        own = self.best_run.kind.capitalize() if "sum" in analysis.queries[0].part_ranks else "Sum, fine-tuned CLIP"
        return [replace(system, name=(SYSTEMS | {WHOLE: own})[system.name]) for system in analysis.systems]

    @cached_property
    def explorer(self) -> Explorer | None:
        """All queries of the best run, with the ranks by the other runs that were analyzed on the same queries."""
        best = self.best_run
        if best.analysis is None:
            return None
        pairs = [Comparison.of(best, run) for run in self.runs if run.number != best.number]
        others = {
            pair.after.name: [query.rank for query in pair.after.analysis.queries]
            for pair in pairs
            if pair is not None and pair.after.analysis is not None
        }
        return Explorer(self.number, best.name, best.analysis, others)

    @property
    def curves(self) -> list[Markup]:
        """Losses and scores of the runs of each stage in one chart."""
        drawn = []
        for stage in dict.fromkeys(run.listed.stage for run in self.runs):
            runs = [run for run in self.runs if run.listed.stage == stage]
            score = runs[0].metric
            for kind, key, title, unit in (
                ("loss", "loss", "Loss", "loss"),
                ("score", score, spoken(score), "percent"),
            ):
                lines = [line for run in runs if (line := logged_line(run.rows, key, run.name))]
                name = f"group-{self.number}-{stage}-{kind}"
                panel = Panel(name, f"{title.capitalize()}, {runs[0].kind}", unit, lines)
                if len(runs) > 1 and panel.is_worthwhile:
                    drawn.append(draw_figure(panel))
        return drawn

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The best run of each setting, or each run of a single one, with the one before it, on the same queries."""
        several = len(self.settings) > 1
        runs = [setting.best_run for setting in self.settings] if several else self.runs
        pairs = pairwise(run for run in runs if run.analysis is not None)
        return [pair for before, after in pairs if (pair := Comparison.of(before, after))]


@dataclass(frozen=True)
class Page:
    """The runs of a report; `shown` is how many queries or moves of each kind are shown."""

    written: str
    version: str
    runs: Sequence[ReportedRun]
    shown: int

    @cached_property
    def groups(self) -> list[Group]:
        """The runs by data set and protocol, in order of the first of each, named by what differs in each group."""
        groups = []
        for number, runs in enumerate(grouped(self.runs)):
            names = Names.of([run.summary for run in runs])
            named = [
                replace(run, name=titled(run.listed.given_name, name), setting=setting)
                for run, name, setting in zip(runs, names.runs, names.settings, strict=True)
            ]
            groups.append(Group(number, runs[0].summary.dataset, runs[0].protocol, named, names.shared))
        return groups

    @property
    def title(self) -> str:
        """What the page is about."""
        datasets = dict.fromkeys(group.dataset for group in self.groups)
        what = self.runs[0].kind if len(self.runs) == 1 else f"{len(self.runs)} runs"
        return f"{what} on {', '.join(datasets)}"

    def html(self, embed: Embed) -> str:
        """The whole page, one file that needs nothing else; `embed` makes thumbnails of named image files."""
        folder = files("mlcl_cli.html_report")
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        environment.filters |= {
            "percent": "{:.2f}".format,
            "thousands": "{:,}".format,
            "spoken": spoken,
            "meaning": meaning,
        }
        pictures = Pictures(embed)
        body = environment.from_string((folder / "page.html.j2").read_text("utf-8")).render(
            page=self, pictures=pictures, samples=SAMPLES, top=TOP, headlines=headlines, levels=LEVELS
        )
        room = MAX_BYTES - ROOM_FOR_REST - len(body.encode(errors="backslashreplace"))
        explorers = [explorer for group in self.groups if (explorer := group.explorer)]
        room -= sum(len(explorer.as_json({}).encode(errors="backslashreplace")) for explorer in explorers)
        symbols = list(pictures.named(room))
        for left, explorer in enumerate(explorers):
            free = room - sum(map(len, symbols))
            symbols += pictures.further(explorer.wanted(), free // (len(explorers) - left))
        return environment.from_string((folder / "frame.html.j2").read_text("utf-8")).render(
            page=self,
            body=Markup(body),
            symbols=symbols,
            queries=[explorer.as_json(pictures.numbers) for explorer in explorers],
            style=Markup((folder / "style.css").read_text("utf-8")),
            script=Markup((folder / "script.js").read_text("utf-8")),
        )


def grouped(runs: Sequence[ReportedRun]) -> list[list[ReportedRun]]:
    """The runs whose metrics compare, in order of the first of each."""
    groups: dict[tuple[str, str], list[ReportedRun]] = {}
    for run in runs:
        groups.setdefault((run.summary.dataset, run.protocol), []).append(run)
    return list(groups.values())


def best_of(runs: Sequence[ReportedRun]) -> ReportedRun:
    """The run with the highest score; of several the last."""
    return max(runs, key=lambda run: (run.best.score, run.number))
