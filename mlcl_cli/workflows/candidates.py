"""The workspace's trained runs as `auto` compares them: which of them fit, and which is best."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mlcl_cli.config import Profile
from mlcl_cli.models.encoder import TOWERS, Towers
from mlcl_cli.runs.description import ImageRecord, Kind
from mlcl_cli.runs.listing import StoredRun, list_runs
from mlcl_cli.runs.summary import BestCheckpoint, RunState, RunSummary
from mlcl_cli.workflows.run_context import RunContext
from mlcl_cli.workflows.selection_reasons import Difference, SkippedRun, SkipReason, describe_differences


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
    def of_profile(cls, context: RunContext) -> Self:
        """Those of the profile, on its whole validation split."""
        image = str(ImageRecord.model_validate(context.image))
        weights = context.profile.combiner.inference_weights
        return cls(context.protocol.name, image, context.validation_digest, whole=True, weights=weights)

    @classmethod
    def of_run(cls, summary: RunSummary) -> Self:
        """Those of a run's own validation. Older runs recorded no digest of their data."""
        return cls(
            summary.protocol,
            str(summary.image),
            (summary.data or {}).get("val"),
            whole=not summary.pruned,
            weights=summary.inference_weights,
        )

    def differences(self, wanted: "Conditions") -> list[tuple[Difference, str]]:
        """What differs from `wanted`, with the value here; empty where the scores compare."""
        differences = []
        if self.image != wanted.image:
            differences.append((Difference.TRANSFORM, self.image))
        if self.weights is not None and self.weights != wanted.weights:
            differences.append((Difference.WEIGHTS, self.weights))
        if not self.whole:
            differences.append((Difference.PRUNED, ""))
        if self.protocol != wanted.protocol:
            differences.append((Difference.PROTOCOL, self.protocol))
        elif self.whole and (self.data is None or self.data != wanted.data):
            differences.append((Difference.OTHER_DATA if self.data and wanted.data else Difference.UNKNOWN_DATA, ""))
        return differences


@dataclass(frozen=True, slots=True)
class Lineage:
    """The fingerprint of a CLIP before tuning, and its tuned encoders; both None where unknown."""

    base: str | None = None
    towers: Towers | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run with its best checkpoint by the deciding metric, and the lineage of that (of a combiner: of its CLIP)."""

    run: StoredRun
    best: BestCheckpoint
    lineage: Lineage

    @property
    def checkpoint(self) -> Path:
        """The file of the best checkpoint."""
        return self.run.folder / self.best.checkpoint

    @property
    def clip(self) -> str:
        """The fingerprint of the CLIP that it started from."""
        return self.run.summary.clip.fingerprint

    @property
    def conditions(self) -> Conditions:
        """What its score was measured under."""
        return Conditions.of_run(self.run.summary)

    @property
    def finished(self) -> bool:
        """Whether its training reached the end."""
        return self.run.state is RunState.FINISHED


@dataclass(frozen=True, slots=True)
class Selection:
    """The best of `compared` candidates; `differences` say why its score may not compare with others.

    `seed` is the profile's where only runs with it were compared.
    """

    chosen: Candidate
    compared: int
    differences: Sequence[tuple[Difference, str]]
    seed: int | None

    def describe(self, metric: str) -> str:
        """Of how many runs it is the best, and its score."""
        score = f"{metric} {self.chosen.best.score:.2f}"
        return f"the only one that fits, {score}" if self.compared == 1 else f"best of {self.compared}, {score}"


@dataclass(slots=True)
class Candidates:
    """The runs that fit so far, oldest first, and those skipped."""

    fitting: list[Candidate]
    skipped: list[SkippedRun]

    @classmethod
    def find(cls, profile: Profile, kind: Kind, metric: str) -> Self:
        """The runs of `kind` on the profile's data set that have a best checkpoint by `metric`."""
        runs = {run.folder.resolve(): run for run in list_runs(profile.workspace)}
        summaries = {folder: run.summary for folder, run in runs.items() if run.problem is None}
        candidates = cls([], [])
        for folder, run in runs.items():
            if run.kind is not kind:
                continue
            if run.problem is not None:
                candidates.skip(run, SkipReason.DAMAGED, f"{run.problem.where}: {run.problem.what}")
            elif run.summary.dataset != profile.dataset:
                continue
            elif (best := run.summary.bests.get(metric)) is None:
                candidates.skip(run, SkipReason.NOT_VALIDATED)
            elif not (run.folder / best.checkpoint).is_file():
                candidates.skip(run, SkipReason.CHECKPOINT_MISSING, best.checkpoint)
            else:
                candidates.fitting.append(Candidate(run, best, _lineage(folder, summaries, profile.workspace)))
        return candidates

    def skip(self, run: StoredRun, reason: SkipReason, detail: str = "") -> None:
        """Add a skipped run."""
        self.skipped.append(SkippedRun(run.name, reason, detail))

    def require(self, fits: Callable[[Candidate], bool], why: Callable[[Candidate], tuple[SkipReason, str]]) -> None:
        """Skip the runs that do not fit."""
        for other in self.fitting:
            if not fits(other):
                self.skip(other.run, *why(other))
        self.fitting = [candidate for candidate in self.fitting if fits(candidate)]

    def select(self, wanted: Conditions, seed: int | None = None) -> Selection | None:
        """The best of the runs whose scores compare under `wanted`, finished ones first; the others are skipped.

        Where none compares: the best of those that were measured as the newest was, on the whole gallery and with the
        profile's transform where there are such. Among equals in all of this, those with `seed` come first.
        """
        comparable = [candidate for candidate in self.fitting if not candidate.conditions.differences(wanted)]
        pool = _finished(comparable) or comparable
        if not pool:
            others = _finished(self.fitting) or self.fitting
            if not others:
                return None
            newest = max(others, key=lambda other: _suitability(other, wanted)).conditions
            pool = [other for other in others if other.conditions == newest]
        seeded = [candidate for candidate in pool if seed is not None and candidate.run.summary.seed == seed]
        pool = seeded or pool
        chosen = max(reversed(pool), key=lambda candidate: candidate.best.score)
        for other in self.fitting:
            if other.conditions != chosen.conditions:
                differences = other.conditions.differences(wanted) or [(Difference.PROTOCOL, other.conditions.protocol)]
                self.skip(other.run, SkipReason.CONDITIONS, describe_differences(differences))
            elif chosen.finished and not other.finished:
                self.skip(other.run, SkipReason.UNFINISHED)
        return Selection(chosen, len(pool), chosen.conditions.differences(wanted), seed if seeded else None)


def _suitability(candidate: Candidate, wanted: Conditions) -> tuple[bool, bool, str, str]:
    conditions = candidate.conditions
    return conditions.image == wanted.image, conditions.whole, candidate.run.created, candidate.run.name


def _finished(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if candidate.finished]


def _lineage(folder: Path, summaries: Mapping[Path, RunSummary], workspace: Path) -> Lineage:
    """The lineage of the best checkpoint of the run in `folder`.

    Runs of older versions recorded none: those are followed from checkpoint to checkpoint down to the untuned CLIP.
    """
    encoder = summaries[folder].encoder
    towers: Towers = frozenset() if encoder is None else TOWERS[encoder]
    for _ in summaries:
        clip = summaries[folder].clip
        if clip.known_base is not None and (clip.tuned is not None or clip.checkpoint is None):
            return Lineage(clip.known_base, towers | frozenset(clip.tuned or ()))
        folder = (workspace / (clip.checkpoint or "")).resolve().parent
        encoder = summaries[folder].encoder if folder in summaries else None
        if encoder is None:
            break
        towers |= TOWERS[encoder]
    return Lineage()
