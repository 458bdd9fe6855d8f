"""Which CLIP and which combiner a command takes, and why."""

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from mlcl_cli.config import Profile
from mlcl_cli.config.types import CLIP_NAMES
from mlcl_cli.errors import DataError
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.models.encoder import BOTH_TOWERS, TOWERS, Encoder, Fingerprints, Tower
from mlcl_cli.models.weights import load_tuned
from mlcl_cli.progress import NOTICE
from mlcl_cli.runs.checkpoints import Checkpoint, load_checkpoint, stored_fingerprint
from mlcl_cli.runs.description import ClipRecord, Kind
from mlcl_cli.runs.listing import FOLDERS
from mlcl_cli.workflows.base_clip import BaseClip
from mlcl_cli.workflows.candidates import Candidates, Selection, describe_skipped
from mlcl_cli.workflows.run_context import RunContext

logger = logging.getLogger(__name__)

START = "--from RUN|FILE|none chooses another start"


class ClipReason(StrEnum):
    """Why a CLIP is used; `{}` stands for a detail."""

    GIVEN = "given by {}"
    DISABLED = "{} is none"
    BOTH_ENCODERS = f"tuning both encoders starts from the untuned CLIP; {START}"
    BEST = "{}"
    BEST_START = f"{{}}; {START}"
    NONE_WITH_OTHER_ENCODER = f"no CLIP here has only its {{}} encoder tuned; {START}"
    NONE_TUNED = "no tuned CLIP in this workspace yet"
    NONE_FITS = "no tuned CLIP fits"
    RUN = "the run's"
    COMBINER = "the combiner was trained on it"
    CATALOG = "the catalog was encoded with it"


@dataclass(frozen=True, slots=True)
class ClipChoice:
    """A base model, tuned weights for it if any, and why."""

    model: str | Path
    checkpoint: Path | None
    reason: ClipReason
    detail: str = ""

    @classmethod
    def of_run(cls, record: ClipRecord, profile: Profile) -> Self:
        """The CLIP that a run started from, in the present workspace; the profile's model if its own is missing."""
        model = record.model if record.model in CLIP_NAMES else (profile.workspace / record.model).resolve()
        if isinstance(model, Path) and not model.exists():
            model = profile.clip.model
        checkpoint = None if record.checkpoint is None else (profile.workspace / record.checkpoint).resolve()
        return cls(model, checkpoint, ClipReason.RUN)


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
    it is the best of those with only the other tower tuned, preferably by runs with the profile's seed, so that runs
    with different seeds never build on each other; for `both` it is the untuned CLIP.
    """
    profile = context.profile
    model = profile.clip.model
    requested, source = (profile.clip.checkpoint, "clip.checkpoint") if start is None else (start, "--from")
    if isinstance(requested, Path):
        return ClipChoice(model, requested, ClipReason.GIVEN, source)
    if requested == "none":
        return ClipChoice(model, None, ClipReason.DISABLED, source)
    other_towers = None if encoder is None else BOTH_TOWERS - TOWERS[encoder]
    if other_towers is not None and not other_towers:
        return ClipChoice(model, None, ClipReason.BOTH_ENCODERS)
    candidates = Candidates.find(context, Kind.CLIP)
    if other_towers is not None:
        candidates.require(
            lambda candidate: candidate.towers == other_towers,
            lambda candidate: f"tuned {_tower_names(candidate.towers or ())}",
        )
    selection = candidates.select(context, None if other_towers is None else profile.seed)
    if selection is not None:
        which = "tuned here" if other_towers is None else f"with only its {_tower_names(other_towers)} encoder tuned"
        seed = "" if selection.seed is None else f", seed {selection.seed}"
        score = f"{context.protocol.bests[0]} {selection.chosen.best.score:.2f}"
        reason = ClipReason.BEST if other_towers is None else ClipReason.BEST_START
        return ClipChoice(model, selection.chosen.checkpoint, reason, f"{selection.rank} {which}{seed}, {score}")
    skipped = describe_skipped(candidates.skipped)
    if other_towers is not None:
        if skipped:
            logger.info(f"Skipped: {skipped}")
        return ClipChoice(model, None, ClipReason.NONE_WITH_OTHER_ENCODER, _tower_names(other_towers))
    if skipped:  # the recipe expects a tuned CLIP
        logger.warning(f"Using the untuned CLIP: no tuned CLIP fits. Skipped: {skipped}")
    return ClipChoice(model, None, ClipReason.NONE_FITS if skipped else ClipReason.NONE_TUNED)


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
        if difference := _image_difference(context, checkpoint):
            logger.warning(f"{shown} was tuned with {difference}")
        tuned, trained_on = f", tuned: {shown}", checkpoint.about.dataset
    level, why = NOTICE if announce else logging.INFO, choice.reason.format(choice.detail)
    logger.log(level, f"CLIP: {_relative(choice.model, workspace)}{tuned} ({why})")
    return LoadedClip(choice, Encoder(network, context.compute), base.fingerprints, trained_on)


def named_clip(context: RunContext) -> LoadedClip | None:
    """The CLIP that the profile's `clip.checkpoint` names; None where it is `auto`."""
    return None if context.profile.clip.checkpoint == "auto" else load_encoder(context, choose_clip(context))


def clip_of_combiner(context: RunContext, combiner: Checkpoint) -> ClipChoice:
    """The CLIP that a combiner was trained on, where `clip.checkpoint` is `auto`.

    It is found by its fingerprint: the profile's model, the recorded file in this workspace or in the combiner's, or
    any tuned CLIP of this workspace. Raises DataError where none of them has it.
    """
    profile, record = context.profile, combiner.about.clip
    if record is None:
        return choose_clip(context)
    if record.fingerprint == context.base.fingerprints.both:
        return ClipChoice(profile.clip.model, None, ClipReason.COMBINER)
    if record.checkpoint is None:
        recorded, missing, setting = [], record.model, "clip.model"
    else:
        folders = (profile.workspace, *combiner.path.parents[2:3])
        recorded = [Path(os.path.normpath(folder / record.checkpoint)) for folder in folders]
        missing, setting = str(recorded[0]), "clip.checkpoint"
    for path in recorded:
        if path.is_file() and stored_fingerprint(path) in (record.fingerprint, None):
            return ClipChoice(profile.clip.model, path, ClipReason.COMBINER)
    for path in sorted(profile.workspace.glob(f"{FOLDERS[Kind.CLIP]}/*/best*.safetensors")):
        if stored_fingerprint(path) == record.fingerprint:
            return ClipChoice(profile.clip.model, path, ClipReason.COMBINER)
    what = f"needs the CLIP that it was trained on, fingerprint {record.fingerprint}, recorded as {missing}"
    where, remedy = combiner.path, f"Set {setting} to the file of that CLIP"
    raise DataError(f"{what}, which is missing or a different CLIP", where=where, remedy=remedy)


def choose_run(context: RunContext, kind: Kind, clip: LoadedClip | None, *, any_base: bool = False) -> Selection | None:
    """The best run of `kind` that fits the profile, its model unless `any_base`, and a combiner's `clip` if given.

    Skipped runs are reported. Raises DataError or MachineError where the profile's model cannot be loaded.
    """
    candidates = Candidates.find(context, kind, any_base=any_base)
    if clip is not None:
        fingerprint = clip.encoder.fingerprints().both
        candidates.require(
            lambda candidate: candidate.clip_fingerprint == fingerprint,
            lambda candidate: f"trained on a different CLIP with fingerprint {candidate.clip_fingerprint}",
        )
    selection = candidates.select(context)
    if selection is None and candidates.skipped:
        skipped = describe_skipped(candidates.skipped)
        logger.warning(f"No {FOLDERS[kind]} run fits this profile. Skipped: {skipped}")
    return selection


def choose_combiner(context: RunContext, requested: Path | None, clip: LoadedClip | None) -> Checkpoint:
    """The combiner to use: the file requested, else the best finished run's. Which and why is reported.

    Raises DataError where there is none that fits the data set and the CLIP (`clip`, if the profile names one).
    """
    checkpoint = find_combiner(context, requested, clip)
    if checkpoint is None:
        remedy = "Run `mlcl train-combiner` first, pass --checkpoint FILE, or use --combining-function sum"
        what = f"found no combiner for {context.profile.dataset} with this CLIP"
        raise DataError(what, where=context.profile.workspace, remedy=remedy)
    return checkpoint


def find_combiner(context: RunContext, requested: Path | None, clip: LoadedClip | None) -> Checkpoint | None:
    """The same, or None where there is none."""
    if requested is not None:
        checkpoint = load_checkpoint(requested, Kind.COMBINER)
        logger.info(f"Combiner: {requested} (given by --checkpoint)")
        return checkpoint
    selection = choose_run(context, Kind.COMBINER, clip)
    if selection is None:
        return None
    checkpoint = load_checkpoint(selection.chosen.checkpoint, Kind.COMBINER)
    logger.log(NOTICE, f"Combiner: {selection.chosen.run.name}, {selection.describe(context.protocol.bests[0])}")
    newest = selection.newest
    if newest.best.score < selection.chosen.best.score:
        what = f"This is not the newest combiner: {newest.run.name} scored only {newest.best.score:.2f}"
        logger.log(NOTICE, f"{what}; --checkpoint {newest.run.name} takes that one")
    return checkpoint


def require_base(checkpoint: Checkpoint, base: BaseClip, workspace: Path) -> None:
    """Raises DataError where a tuned CLIP was tuned from another model than `base`."""
    record = checkpoint.about.clip
    if record is not None and record.known_base not in (None, base.fingerprints.both):
        model = f"clip.model ({_relative(base.model, workspace)}) has {base.fingerprints.both}"
        what = f"was tuned from a CLIP with fingerprint {record.known_base}, but {model}"
        remedy = "Set clip.model to the model that was tuned, or clip.checkpoint to none"
        raise DataError(what, where=checkpoint.path, remedy=remedy)


def require_compatible(context: RunContext, checkpoint: Checkpoint, store: FeatureStore) -> None:
    """Raises DataError where a combiner would be used with a CLIP or transform that it was not trained with.

    Another data set is allowed, with a warning: that is zero-shot transfer.
    """
    record, fingerprint, path = checkpoint.about.clip, store.fingerprints.both, checkpoint.path
    if record is None:
        logger.warning(f"{path.name} does not record which CLIP it was trained on, so this is not checked")
    elif record.fingerprint != fingerprint:
        other = f"{record.model}, tuned: {record.checkpoint or 'none'}, fingerprint {record.fingerprint}"
        what = f"was trained on a different CLIP ({other}); the CLIP in use has fingerprint {fingerprint}"
        remedy = "Set clip.model and clip.checkpoint to that CLIP, or clip.checkpoint to auto"
        raise DataError(what, where=path, remedy=remedy)
    warn_of_transfer(context, path.name, checkpoint.about.dataset)
    if difference := _image_difference(context, checkpoint):
        remedy = "Set image.transform and image.target_ratio to the checkpoint's"
        raise DataError(f"was trained with {difference}", where=path, remedy=remedy)
    size = int(checkpoint.state["text_projection_layer.weight"].shape[1])
    if size != store.encoder.feature_dim:
        what = f"takes features of size {size}, and this CLIP gives {store.encoder.feature_dim}"
        raise DataError(what, where=path, remedy="Set clip.model to the model that it was trained on")


def warn_of_transfer(context: RunContext, name: str, trained_on: str | None) -> None:
    """Warns where weights were trained on another data set than the profile's."""
    dataset = context.profile.dataset
    if trained_on not in (None, dataset):
        logger.warning(f"{name} was trained on {trained_on}: on {dataset} this is zero-shot transfer")


def _image_difference(context: RunContext, checkpoint: Checkpoint) -> str | None:
    trained, image = checkpoint.about.image, context.image_record
    if trained is None or trained == image:
        return None
    return f"{trained.settings}, but the profile has {image.settings}"


def _tower_names(towers: Iterable[Tower]) -> str:
    return " and ".join(sorted(towers, reverse=True)) or "nothing"


def _relative(path: str | Path, workspace: Path) -> str:
    return str(path.relative_to(workspace)) if isinstance(path, Path) and path.is_relative_to(workspace) else str(path)
