"""The workspace's trained runs as `auto` compares them: which fit, which is best, and why others were passed over."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Self

from mlcl_cli.config import Profile
from mlcl_cli.errors import some
from mlcl_cli.models.encoder import TOWERS, Towers
from mlcl_cli.runs.description import ImageRecord
from mlcl_cli.runs.listing import ListedRun, list_runs
from mlcl_cli.runs.records import BestRecord, RunRecord, read_record
from mlcl_cli.workflows.run_context import RunContext

SHOWN = 3


class Reason(StrEnum):
    """Why `auto` passes a run over."""

    UNREADABLE = "damaged run.json"
    UNSCORED = "no validated epoch"
    GONE = "missing checkpoint"
    BASE = "trained on another CLIP"
    NO_BASE = "base CLIP not recorded"
    TOWERS = "tuned"
    CONDITIONS = "scored under"
    UNFINISHED = "not finished"


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A run that was not considered, and the reason."""

    run: str
    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.run} ({self.reason}{' ' if self.detail else ''}{self.detail})"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a score was measured under. Scores compare only where all of it is equal and the gallery is whole.

    `data` is the digest of what was ranked, None where it is not known; `weights` are the levels' weights that a
    combiner ranked with, released or matched, None without a combiner.
    """

    protocol: str
    image: str
    data: str | None
    whole: bool
    weights: str | None

    @classmethod
    def of(cls, context: RunContext) -> Self:
        """Those of the profile, on its whole validation split."""
        image = str(ImageRecord.model_validate(context.image))
        weights = context.profile.combiner.inference_weights
        return cls(context.protocol.name, image, context.validation_digest, whole=True, weights=weights)

    def differences(self, wanted: "Conditions") -> str:
        """In words, what differs from `wanted`; empty where the scores compare."""
        told = []
        if self.image != wanted.image:
            told.append(f"transform {self.image}")
        if self.weights not in (None, wanted.weights):
            told.append(f"inference_weights {self.weights}")
        if not self.whole:
            told.append("a pruned gallery")
        if self.protocol != wanted.protocol:
            told.append(f"protocol {self.protocol}")
        elif self.whole and (self.data is None or self.data != wanted.data):
            told.append("other validation data" if self.data and wanted.data else "unknown validation data")
        return ", ".join(told)


class _Lineage(NamedTuple):
    base: str | None
    towers: Towers | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run with its best checkpoint by the deciding metric.

    `clip` is the fingerprint of the CLIP that it started from, `base` that of its untuned model, the
    `towers` that are tuned in its checkpoint (of a combiner: in its CLIP); both None where they cannot be told.
    """

    name: str
    dataset: str
    state: str
    created: str
    seed: int | None
    conditions: Conditions
    clip: str
    base: str | None
    towers: Towers | None
    score: float
    checkpoint: Path

    @property
    def finished(self) -> bool:
        """Whether its training reached the end."""
        return self.state == "finished"


@dataclass(frozen=True, slots=True)
class Selection:
    """The run that `auto` takes, the best of `compared`; `differences` says why its score compares with no other's."""

    run: Candidate
    compared: int
    differences: str
    seed: int | None


def find_candidates(profile: Profile, stage: str, metric: str) -> tuple[list[Candidate], list[PassedOver]]:
    """The stage's runs of the profile's data set that have a best checkpoint, oldest first; and those that do not."""
    runs = list_runs(profile)
    read = {run.folder.resolve(): (run, read_record(run)) for run in runs}
    found, passed = list[Candidate](), list[PassedOver]()
    for folder, (run, summary) in read.items():
        name = f"{run.stage}/{run.folder.name}"
        if run.stage != stage:
            continue
        if isinstance(summary, str):
            passed.append(PassedOver(name, Reason.UNREADABLE, summary))
        elif summary.dataset == profile.dataset:
            best = summary.bests.get(metric)
            if best is None:
                passed.append(PassedOver(name, Reason.UNSCORED))
            elif not (run.folder / best.checkpoint).is_file():
                passed.append(PassedOver(name, Reason.GONE, best.checkpoint))
            else:
                summaries = {path: parsed for path, (_, parsed) in read.items() if isinstance(parsed, RunRecord)}
                found.append(_candidate(run, summary, best, _lineage(folder, summaries, profile.workspace)))
    return found, passed


def select(candidates: Sequence[Candidate], wanted: Conditions, seed: int | None = None) -> Selection | None:
    """The best of the runs whose scores compare under `wanted`, finished ones first.

    Where none compares: the best of those that were measured as the newest was, on the whole gallery and with the
    profile's transform where there are such. Among equals in all of this, those with `seed` come first.
    """
    comparable = [one for one in candidates if not one.conditions.differences(wanted)]
    pool = _finished(comparable) or comparable
    if not pool:
        others = _finished(candidates) or candidates
        if not others:
            return None
        newest = max(
            others, key=lambda one: (one.conditions.image == wanted.image, one.conditions.whole, one.created, one.name)
        )
        pool = [one for one in others if one.conditions == newest.conditions]
    seeded = [one for one in pool if seed is not None and one.seed == seed]
    pool = seeded or pool
    best = max(reversed(pool), key=lambda one: one.score)
    return Selection(best, len(pool), best.conditions.differences(wanted), seed if seeded else None)


def outdone(candidates: Sequence[Candidate], chosen: Selection, wanted: Conditions) -> list[PassedOver]:
    """The candidates whose scores were not compared with the chosen one's, and why."""
    passed = []
    for one in candidates:
        if one.conditions != chosen.run.conditions:
            told = one.conditions.differences(wanted) or f"protocol {one.conditions.protocol}"
            passed.append(PassedOver(one.name, Reason.CONDITIONS, told))
        elif chosen.run.finished and not one.finished:
            passed.append(PassedOver(one.name, Reason.UNFINISHED))
    return passed


def in_words(passed: Iterable[PassedOver]) -> str:
    """The first few, newest first: run names begin with their time."""
    return some(sorted(map(str, passed), reverse=True), SHOWN)


def _finished(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [one for one in candidates if one.finished]


def _candidate(run: ListedRun, summary: RunRecord, best: BestRecord, lineage: _Lineage) -> Candidate:
    data = None if summary.data is None else summary.data.get("val")
    towers = lineage.towers
    if summary.encoder is not None and towers is not None:
        towers |= TOWERS[summary.encoder]
    return Candidate(
        f"{run.stage}/{run.folder.name}",
        summary.dataset,
        run.state,
        summary.created,
        summary.seed,
        Conditions(summary.protocol, str(summary.image), data, not summary.pruned, summary.inference_weights),
        summary.clip.fingerprint,
        lineage.base,
        towers,
        best.score,
        run.folder / best.checkpoint,
    )


def _lineage(folder: Path, summaries: Mapping[Path, RunRecord], workspace: Path) -> _Lineage:
    """The base and the tuned towers of the CLIP that the run in `folder` began with.

    Runs of older versions recorded neither: those are followed from checkpoint to checkpoint down to the untuned CLIP.
    """
    towers: Towers = frozenset()
    for _ in summaries:
        clip = summaries[folder].clip
        if clip.known_base is not None and (clip.tuned is not None or clip.checkpoint is None):
            return _Lineage(clip.known_base, towers | frozenset(clip.tuned or ()))
        folder = (workspace / (clip.checkpoint or "")).resolve().parent
        encoder = summaries[folder].encoder if folder in summaries else None
        if encoder is None:
            break
        towers |= TOWERS[encoder]
    return _Lineage(None, None)
