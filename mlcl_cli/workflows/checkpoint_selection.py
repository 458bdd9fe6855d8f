"""Which CLIP and which combiner a command takes, and why."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from mlcl_cli.config.types import CLIP_NAMES
from mlcl_cli.errors import DataError
from mlcl_cli.models.encoder import BOTH_TOWERS, TOWERS, Encoder, Fingerprints, Towers
from mlcl_cli.models.weights import load_tuned
from mlcl_cli.progress import NOTICE
from mlcl_cli.runs.checkpoints import Checkpoint, load_checkpoint
from mlcl_cli.runs.description import ClipRecord, ImageRecord, Kind
from mlcl_cli.runs.listing import FOLDERS
from mlcl_cli.workflows.base_clip import BaseClip
from mlcl_cli.workflows.candidates import Candidate, Candidates, Conditions, Selection
from mlcl_cli.workflows.run_context import RunContext
from mlcl_cli.workflows.selection_reasons import (
    ClipReason,
    Difference,
    SkippedRun,
    SkipReason,
    describe_differences,
    describe_skipped,
    describe_towers,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClipChoice:
    """A base model, tuned weights for it if any, and why."""

    model: str | Path
    checkpoint: Path | None
    reason: ClipReason
    detail: str = ""

    @classmethod
    def from_record(cls, record: ClipRecord, workspace: Path, reason: ClipReason) -> Self:
        """The CLIP of a run or a checkpoint, in the workspace as it is now."""
        model = record.model if record.model in CLIP_NAMES else (workspace / record.model).resolve()
        checkpoint = None if record.checkpoint is None else (workspace / record.checkpoint).resolve()
        return cls(model, checkpoint, reason)

    def with_model_at(self, model: str | Path) -> Self:
        """The same choice with `model` where its own model is a file that no longer exists."""
        return replace(self, model=model) if isinstance(self.model, Path) and not self.model.exists() else self


@dataclass(frozen=True)
class LoadedClip:
    """The chosen CLIP on the device, its base's fingerprints, and the data set that it was tuned on, if any."""

    choice: ClipChoice
    encoder: Encoder
    base: Fingerprints
    trained_on: str | None

    def record(self, workspace: Path, fingerprints: Fingerprints) -> ClipRecord:
        """What a run stores of it; `fingerprints` are those of the weights before the run.

        Files are stored relative to the workspace, so that all may move together.
        """
        choice = self.choice
        return ClipRecord(
            model=choice.model if isinstance(choice.model, str) else os.path.relpath(choice.model, workspace),
            checkpoint=None if choice.checkpoint is None else os.path.relpath(choice.checkpoint, workspace),
            fingerprint=fingerprints.both,
            base=self.base.both,
            tuned=fingerprints.changed_towers(self.base),
        )


def choose_clip(context: RunContext, start: str | Path | None = None, encoder: str | None = None) -> ClipChoice:
    """The CLIP to start from: `start` (a file, or `none`) if given, else as the profile's `clip.checkpoint` sets it.

    `auto` is this workspace's best CLIP tuned from the profile's model on its data set. Where `encoder` is to be tuned,
    it is the best of those with only the other tower tuned, preferably by runs with the profile's seed, so that chains
    with different seeds stay independent; for `both` it is the untuned CLIP.
    """
    profile = context.profile
    model = profile.clip.model
    asked, source = (profile.clip.checkpoint, "clip.checkpoint") if start is None else (start, "--from")
    if isinstance(asked, Path):
        return ClipChoice(model, asked, ClipReason.GIVEN, source)
    if asked == "none":
        return ClipChoice(model, None, ClipReason.DISABLED, source)
    towers = None if encoder is None else BOTH_TOWERS - TOWERS[encoder]
    if towers is not None and not towers:
        return ClipChoice(model, None, ClipReason.BOTH_ENCODERS)
    metric = context.protocol.bests[0]
    candidates = Candidates.find(profile, Kind.CLIP, metric)
    _require_base(context, candidates)
    if towers is not None:
        candidates.require(
            lambda run: run.lineage.towers == towers,
            lambda run: (SkipReason.TOWERS, describe_towers(run.lineage.towers)),
        )
    selection = _select(context, candidates, None if encoder is None else profile.seed)
    if selection is None:
        return _untuned(model, towers, candidates.skipped)
    which = "tuned here" if towers is None else f"with only its {describe_towers(towers)} encoder tuned"
    seed = "" if selection.seed is None else f", seed {selection.seed}"
    detail = f"{selection.compared} {which}{seed}, {metric} {selection.chosen.best.score:.2f}"
    reason = ClipReason.BEST if towers is None else ClipReason.BEST_START
    return ClipChoice(model, selection.chosen.checkpoint, reason, detail)


def load_encoder(context: RunContext, choice: ClipChoice, *, announce: bool = False) -> LoadedClip:
    """Load the chosen CLIP onto the device and report which it is, even to a quiet terminal if `announce`.

    Raises DataError where tuned weights were tuned from another base than the model at hand.
    """
    workspace = context.profile.workspace
    base = context.base if choice.model == context.profile.clip.model else BaseClip(choice.model)
    network = base.take()
    tuned, trained_on = "", None
    if choice.checkpoint is not None:
        checkpoint, shown = load_checkpoint(choice.checkpoint, Kind.CLIP), _relative(choice.checkpoint, workspace)
        load_tuned(network, checkpoint.state, choice.checkpoint)
        require_base(checkpoint, base, workspace)
        description, image = checkpoint.about, ImageRecord.model_validate(context.image)
        if description.image is not None and description.image != image:
            problem = f"was tuned with {description.image.settings}, but the profile has {image.settings}"
            logger.warning(f"{shown} {problem}")
        tuned, trained_on = f", tuned: {shown}", description.dataset
    level, why = NOTICE if announce else logging.INFO, choice.reason.format(choice.detail)
    logger.log(level, f"CLIP: {_relative(choice.model, workspace)}{tuned} ({why})")
    return LoadedClip(choice, Encoder(network, context.compute), base.fingerprints, trained_on)


def named_clip(context: RunContext) -> LoadedClip | None:
    """The CLIP that the profile's `clip.checkpoint` names; None where it says `auto`."""
    return None if context.profile.clip.checkpoint == "auto" else load_encoder(context, choose_clip(context))


def choose_run(context: RunContext, kind: Kind, clip: LoadedClip | None, *, any_base: bool = False) -> Selection | None:
    """The best run of `kind` that fits the profile, its model (or `any_base`), and `clip` if given.

    Skipped runs are reported. Raises DataError or MachineError where the profile's model cannot be loaded.
    """
    candidates = Candidates.find(context.profile, kind, context.protocol.bests[0])
    if not any_base:
        _require_base(context, candidates)
    if clip is not None and kind is Kind.COMBINER:
        fingerprint = clip.encoder.fingerprints().both
        candidates.require(
            lambda run: run.clip == fingerprint,
            lambda run: (SkipReason.OTHER_CLIP, f"with fingerprint {run.clip}"),
        )
    selection = _select(context, candidates)
    if selection is None and candidates.skipped:
        logger.warning(f"No {FOLDERS[kind]} run fits this profile. Skipped: {describe_skipped(candidates.skipped)}")
    return selection


def choose_combiner(context: RunContext, asked: Path | None, clip: LoadedClip | None) -> Checkpoint:
    """The combiner to use: the file asked for, else the best finished run's. Which and why is reported.

    Raises DataError where there is none that fits the data set and the CLIP (`clip`, if the profile names one).
    """
    profile = context.profile
    if asked is not None:
        checkpoint = load_checkpoint(asked, Kind.COMBINER)
        logger.info(f"Combiner: {asked} (given by --checkpoint)")
        return checkpoint
    selection = choose_run(context, Kind.COMBINER, clip)
    if selection is None:
        raise DataError(
            f"found no combiner for {profile.dataset} with this CLIP",
            where=profile.workspace,
            remedy="Run `mlcl train-combiner` first, give --checkpoint FILE, or use --combining-function sum",
        )
    checkpoint = load_checkpoint(selection.chosen.checkpoint, Kind.COMBINER)
    logger.log(NOTICE, f"Combiner: {selection.chosen.run.name}, {selection.describe(context.protocol.bests[0])}")
    return checkpoint


def require_base(checkpoint: Checkpoint, base: BaseClip, workspace: Path) -> None:
    """Raises DataError where a tuned CLIP was tuned from another model than `base`."""
    record = checkpoint.about.clip
    if record is not None and record.known_base not in (None, base.fingerprint):
        raise DataError(
            f"was tuned from a CLIP with fingerprint {record.known_base}, but clip.model "
            f"({_relative(base.model, workspace)}) has {base.fingerprint}",
            where=checkpoint.path,
            remedy="Set clip.model to the model that was tuned, or clip.checkpoint to none",
        )


def _require_base(context: RunContext, candidates: Candidates) -> None:
    """Skip the runs whose CLIP was tuned from another model than the profile's."""

    def why(run: Candidate) -> tuple[SkipReason, str]:
        base = run.lineage.base
        return (SkipReason.OTHER_CLIP, f"with base {base}") if base else (SkipReason.BASE_UNKNOWN, "")

    if candidates.fitting:  # else the model need not be loaded
        fingerprint = context.base.fingerprint
        candidates.require(lambda run: run.lineage.base == fingerprint, why)


def _select(context: RunContext, candidates: Candidates, seed: int | None = None) -> Selection | None:
    """The best candidate. Reports the skipped runs, and warns where it is not what the profile would train."""
    selection = candidates.select(Conditions.of_profile(context), seed)
    if selection is None:
        return None
    run, skipped = selection.chosen.run, candidates.skipped
    if damaged := [other for other in skipped if other.reason is SkipReason.DAMAGED]:
        logger.warning(f"Skipped: {describe_skipped(damaged)}")
    if others := [other for other in skipped if other.reason is not SkipReason.DAMAGED]:
        logger.info(f"Skipped: {describe_skipped(others)}")
    if not selection.chosen.finished:
        logger.warning(f"{run.name} is {run.state}, but no finished run fits: its best epoch so far is used")
    pruned = [difference for difference, _ in selection.differences] == [Difference.PRUNED]
    if selection.differences and not (pruned and context.profile.bad_images == "drop"):
        differences = describe_differences(selection.differences)
        logger.warning(f"{run.name} was validated under other settings than the profile's: {differences}")
    return selection


def _untuned(model: str | Path, towers: Towers | None, skipped: Sequence[SkippedRun]) -> ClipChoice:
    """The untuned CLIP. Runs that were skipped are a warning where the recipe expects a tuned one."""
    if towers is not None:
        if skipped:
            logger.info(f"Skipped: {describe_skipped(skipped)}")
        return ClipChoice(model, None, ClipReason.NONE_WITH_OTHER_ENCODER, describe_towers(towers))
    if not skipped:
        return ClipChoice(model, None, ClipReason.NONE_TUNED)
    logger.warning(f"The CLIP is untuned: no tuned one fits. Skipped: {describe_skipped(skipped)}")
    return ClipChoice(model, None, ClipReason.NONE_FITS)


def _relative(path: str | Path, workspace: Path) -> str:
    return str(path.relative_to(workspace)) if isinstance(path, Path) and path.is_relative_to(workspace) else str(path)
