"""The workspace's runs as `auto` compares them: which of them fit the profile, and which is best."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from mlcl_cli.errors import some
from mlcl_cli.models.encoder import TOWERS, Towers
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.listing import StoredRun, list_runs
from mlcl_cli.runs.summary import BestCheckpoint, RunState, RunSummary
from mlcl_cli.workflows.run_context import RunContext

logger = logging.getLogger(__name__)

PRUNED = "a pruned gallery"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a score was measured under. Scores are comparable only if all of it is equal and the gallery is whole.

    `data` is the digest of what was ranked, None if unknown. `inference_weights` says which weights of its levels a
    combiner ranked with, released or matched; None without a combiner.
    """

    protocol: str
    image: str
    data: str | None
    whole_gallery: bool
    inference_weights: str | None

    def differences(self, wanted: "Conditions") -> list[str]:
        """What differs from `wanted`, in words; empty if the scores are comparable."""
        differences = []
        if self.image != wanted.image:
            differences.append(f"transform {self.image}")
        if self.inference_weights not in (None, wanted.inference_weights):
            differences.append(f"inference_weights {self.inference_weights}")
        if not self.whole_gallery:
            differences.append(PRUNED)
        if self.protocol != wanted.protocol:
            differences.append(f"protocol {self.protocol}")
        elif self.whole_gallery and (self.data is None or self.data != wanted.data):
            differences.append(f"{'different' if self.data and wanted.data else 'unknown'} validation data")
        return differences


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run with its best checkpoint by the deciding metric.

    `base_fingerprint` identifies its CLIP before any tuning, and `towers` are the encoders tuned since, by this run or
    an earlier one; None if unknown.
    """

    run: StoredRun
    best: BestCheckpoint
    base_fingerprint: str | None
    towers: Towers | None

    @property
    def checkpoint(self) -> Path:
        """The file of the best checkpoint."""
        return self.run.folder / self.best.checkpoint

    @property
    def clip_fingerprint(self) -> str:
        """The fingerprint of the CLIP that the run started from."""
        return self.run.summary.clip.fingerprint

    @property
    def conditions(self) -> Conditions:
        """What its score was measured under. Older runs recorded no digest of their data."""
        run = self.run.summary
        data = (run.data or {}).get("val")
        return Conditions(
            run.protocol,
            str(run.image),
            data,
            whole_gallery=not run.pruned,
            inference_weights=run.inference_weights,
        )

    @property
    def finished(self) -> bool:
        """Whether its training is complete."""
        return self.run.state is RunState.FINISHED


@dataclass(frozen=True, slots=True)
class Selection:
    """The best of `compared` candidates, and the newest; `seed` is set if only those with that seed were compared."""

    chosen: Candidate
    newest: Candidate
    compared: int
    seed: int | None

    @property
    def rank(self) -> str:
        """How many runs it was chosen from, in words."""
        return "the only candidate" if self.compared == 1 else f"best of {self.compared}"

    def describe(self, metric: str) -> str:
        """How many runs it was chosen from, and its score, in words."""
        return f"{self.rank}, {metric} {self.chosen.best.score:.2f}"


@dataclass(slots=True)
class Candidates:
    """The runs that fit so far, oldest first, and why others were skipped."""

    fitting: list[Candidate] = field(default_factory=list)
    skipped: dict[StoredRun, str] = field(default_factory=dict)

    @classmethod
    def find(cls, context: RunContext, kind: Kind, *, any_base: bool = False) -> Self:
        """The runs of `kind` on the profile's data set and model (or `any_base`) with a best checkpoint.

        Raises DataError or MachineError where the profile's model cannot be loaded.
        """
        profile, metric = context.profile, context.protocol.bests[0]
        runs = {run.folder.resolve(): run for run in list_runs(profile.workspace)}
        summaries = {folder: run.summary for folder, run in runs.items() if run.problem is None}
        candidates = cls()
        for run in runs.values():
            if run.kind is not kind:
                continue
            if run.problem is not None:
                candidates.skipped[run] = f"damaged run.json {run.problem.where}: {run.problem.what}"
            elif run.summary.dataset != profile.dataset:
                continue
            elif (best := run.summary.bests.get(metric)) is None:
                candidates.skipped[run] = "no validated epoch"
            elif not (run.folder / best.checkpoint).is_file():
                candidates.skipped[run] = f"missing checkpoint {best.checkpoint}"
            else:
                candidates.fitting.append(_candidate(run, best, summaries, profile.workspace))
        if candidates.fitting and not any_base:  # without candidates, the model need not be loaded
            model = context.base.fingerprints.both
            candidates.require(
                lambda candidate: candidate.base_fingerprint == model,
                lambda candidate: (
                    f"trained on a different CLIP with base {base}"
                    if (base := candidate.base_fingerprint)
                    else "base CLIP not recorded"
                ),
            )
        return candidates

    def require(self, fits: Callable[[Candidate], bool], why: Callable[[Candidate], str]) -> None:
        """Skip the candidates that do not fit, and record `why`."""
        self.skipped |= {candidate.run: why(candidate) for candidate in self.fitting if not fits(candidate)}
        self.fitting = [candidate for candidate in self.fitting if candidate.run not in self.skipped]

    def select(self, context: RunContext, seed: int | None = None) -> Selection | None:
        """The best by score of the runs measured under the profile's conditions; unfinished ones if none has finished.

        If no run was, runs that share one other set of conditions are compared: one with the profile's transform if
        possible, then one with the whole gallery if possible, then the newest run's. If any of the runs to compare has
        `seed`, only those are compared. Reports the skipped runs, and warns if the chosen one is unfinished, or was
        measured under other conditions than the profile's.
        """
        wanted = Conditions(
            context.protocol.name,
            str(context.image_record),
            context.validation_digest,
            whole_gallery=True,
            inference_weights=context.profile.combiner.inference_weights,
        )
        comparable = [candidate for candidate in self.fitting if not candidate.conditions.differences(wanted)]
        pool = _finished(comparable) or comparable
        if not pool:
            others = _finished(self.fitting) or self.fitting
            if not others:
                return None
            measured = [other.conditions for other in reversed(others)]
            preferred = max(
                measured, key=lambda conditions: (conditions.image == wanted.image, conditions.whole_gallery)
            )
            pool = [other for other in others if other.conditions == preferred]
        seeded = [candidate for candidate in pool if candidate.run.summary.seed == seed]
        pool = seeded or pool
        chosen = max(reversed(pool), key=lambda candidate: candidate.best.score)
        for other in self.fitting:
            differences = other.conditions.differences(wanted)
            if differences and other.conditions != chosen.conditions:
                self.skipped[other.run] = f"scored with {', '.join(differences)}"
            elif chosen.finished and not other.finished:
                self.skipped[other.run] = "not finished"
        self._report(context, chosen, chosen.conditions.differences(wanted))
        return Selection(chosen, pool[-1], len(pool), seed if seeded else None)

    def _report(self, context: RunContext, chosen: Candidate, differences: Sequence[str]) -> None:
        if damaged := {run: why for run, why in self.skipped.items() if run.problem}:
            logger.warning(f"Skipped: {describe_skipped(damaged)}")
        if others := {run: why for run, why in self.skipped.items() if not run.problem}:
            logger.info(f"Skipped: {describe_skipped(others)}")
        name, state = chosen.run.name, chosen.run.state
        if not chosen.finished:
            logger.warning(f"{name} is {state}, but no finished run fits: its best epoch so far is used")
        expected = [PRUNED] if context.profile.bad_images == "drop" else []
        if differences not in ([], expected):
            what = ", ".join(differences)
            logger.warning(f"{name} was validated under settings other than the profile's: {what}")


def describe_skipped(runs: Mapping[StoredRun, str]) -> str:
    """Up to three of the runs with their reasons, the last ones by name first, and how many more there are."""
    return some(sorted((f"{run.name} ({why})" for run, why in runs.items()), reverse=True), 3)


def _finished(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if candidate.finished]


def _candidate(
    run: StoredRun, best: BestCheckpoint, summaries: Mapping[Path, RunSummary], workspace: Path
) -> Candidate:
    """A candidate with its base and towers.

    Runs of older versions recorded neither: then the checkpoints that each run started from are followed back to the
    untuned CLIP.
    """
    folder, towers = run.folder.resolve(), Towers()
    for _ in summaries:  # a bound: damaged records may form a cycle
        clip, encoder = summaries[folder].clip, summaries[folder].encoder
        towers |= TOWERS[encoder] if encoder else Towers()
        if clip.known_base is not None and (clip.tuned is not None or clip.checkpoint is None):
            return Candidate(run, best, clip.known_base, towers | Towers(clip.tuned or ()))
        folder = (workspace / (clip.checkpoint or "")).resolve().parent
        if folder not in summaries or summaries[folder].encoder is None:
            break
    return Candidate(run, best, None, None)
