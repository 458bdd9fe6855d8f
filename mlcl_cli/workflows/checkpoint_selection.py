"""Which CLIP and which combiner a command takes, and why."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from mlcl_cli.config.types import CLIP_NAMES
from mlcl_cli.errors import DataError
from mlcl_cli.models.encoder import BOTH_TOWERS, TOWERS, Encoder, Fingerprints, Towers
from mlcl_cli.models.weights import load_tuned
from mlcl_cli.progress import NOTICE
from mlcl_cli.runs.checkpoints import Checkpoint, load_checkpoint
from mlcl_cli.runs.description import ImageRecord, Kind
from mlcl_cli.workflows.base_clip import BaseClip
from mlcl_cli.workflows.candidates import (
    Candidate,
    Conditions,
    PassedOver,
    Reason,
    Selection,
    find_candidates,
    in_words,
    outdone,
    select,
)
from mlcl_cli.workflows.run_context import RunContext

logger = logging.getLogger(__name__)

START = "--from RUN|FILE|none chooses another start"


@dataclass(frozen=True, slots=True)
class ClipChoice:
    """A base model, tuned weights for it if any, and the reason."""

    model: str | Path
    checkpoint: Path | None
    why: str

    def describe(self, workspace: Path) -> dict[str, Any]:
        """What a run stores of it; files by the way to them from the workspace, so that all may move together."""
        checkpoint = None if self.checkpoint is None else place_of(self.checkpoint, workspace)
        return {"model": place_of(self.model, workspace), "checkpoint": checkpoint}

    @classmethod
    def described(cls, told: Mapping[str, Any], workspace: Path, why: str) -> Self:
        """The choice that `describe` told of, in the workspace as it is now."""
        model, checkpoint = told["model"], told["checkpoint"]
        named = model in CLIP_NAMES
        return cls(
            model if named else (workspace / model).resolve(),
            None if checkpoint is None else (workspace / checkpoint).resolve(),
            why,
        )

    def found_at(self, model: str | Path) -> Self:
        """The same choice with `model`, where its own file is not there any more."""
        return replace(self, model=model) if isinstance(self.model, Path) and not self.model.exists() else self


@dataclass(frozen=True)
class LoadedClip:
    """The chosen CLIP on the device, its base's fingerprints, and the data set that it was tuned on, if any."""

    choice: ClipChoice
    encoder: Encoder
    base: Fingerprints
    trained_on: str | None

    def describe(self, workspace: Path, fingerprints: Fingerprints) -> dict[str, Any]:
        """What a run stores of it, a `ClipRecord`; `fingerprints` are those of the weights before the run."""
        known = {"fingerprint": fingerprints.both, "base": self.base.both}
        return {**self.choice.describe(workspace), **known, "tuned": fingerprints.changed_towers(self.base)}


def place_of(model: str | Path, workspace: Path) -> str:
    """A name as it is, a file by the way to it from the workspace."""
    return model if isinstance(model, str) else os.path.relpath(model, workspace)


def choose_clip(context: RunContext, start: str | Path | None = None, encoder: str | None = None) -> ClipChoice:
    """The CLIP to start from: `start` (a file, or `none`) if given, else as the profile's `clip.checkpoint` says.

    `auto` is this workspace's best CLIP tuned from the profile's model on its data set. Where `encoder` is to be tuned,
    it is the best of those with only the other tower tuned, preferably by runs with the profile's seed, so that chains
    with different seeds stay independent; for `both` it is the untuned CLIP.
    """
    profile = context.profile
    asked, source = (profile.clip.checkpoint, "clip.checkpoint") if start is None else (start, "--from")
    if isinstance(asked, Path):
        return ClipChoice(profile.clip.model, asked, f"given by {source}")
    if asked == "none":
        return ClipChoice(profile.clip.model, None, f"{source} is none")
    wanted = None if encoder is None else BOTH_TOWERS - TOWERS[encoder]
    if wanted is not None and not wanted:
        return ClipChoice(profile.clip.model, None, f"tuning both encoders starts from the untuned CLIP; {START}")
    found, passed = find_candidates(profile, "finetune", context.protocol.bests[0])
    fit, unfit = _with_base(context, found)
    passed += unfit
    if wanted is not None:
        passed += [PassedOver(one.name, Reason.TOWERS, _tower_names(one.towers)) for one in fit if one.towers != wanted]
        fit = [one for one in fit if one.towers == wanted]
    conditions = Conditions.of(context)
    chosen = select(fit, conditions, None if wanted is None else profile.seed)
    if chosen is None:
        return ClipChoice(profile.clip.model, None, _nothing_tuned(wanted, passed))
    _tell(context, chosen, [*passed, *outdone(fit, chosen, conditions)])
    which = "tuned here" if wanted is None else f"with only its {_tower_names(wanted)} encoder tuned"
    seeded = "" if chosen.seed is None else f", seed {chosen.seed}"
    why = f"best of {chosen.compared} {which}{seeded}, {context.protocol.bests[0]} {chosen.run.score:.2f}"
    return ClipChoice(profile.clip.model, chosen.run.checkpoint, why if wanted is None else f"{why}; {START}")


def load_encoder(context: RunContext, choice: ClipChoice, *, announce: bool = False) -> LoadedClip:
    """Loads the chosen CLIP onto the device and says which it is, even to a quiet terminal if `announce`.

    Raises DataError where tuned weights were tuned from another base than the model at hand.
    """
    workspace = context.profile.workspace
    base = context.base if choice.model == context.profile.clip.model else BaseClip(choice.model)
    network = base.take()
    tuned, trained_on = "", None
    if choice.checkpoint is not None:
        checkpoint = load_checkpoint(choice.checkpoint, Kind.CLIP)
        load_tuned(network, checkpoint.state, choice.checkpoint)
        require_base(checkpoint, base, workspace)
        image, expected = checkpoint.about.image, ImageRecord.model_validate(context.image)
        if image is not None and image != expected:
            problem = f"was tuned with {image.settings}, but the profile has {expected.settings}"
            logger.warning(f"{_shown(choice.checkpoint, workspace)} {problem}")
        tuned, trained_on = f", tuned: {_shown(choice.checkpoint, workspace)}", checkpoint.about.dataset
    level = NOTICE if announce else logging.INFO
    logger.log(level, f"CLIP: {_shown(choice.model, workspace)}{tuned} ({choice.why})")
    return LoadedClip(choice, Encoder(network, context.compute), base.fingerprints, trained_on)


def named_clip(context: RunContext) -> LoadedClip | None:
    """The CLIP that the profile's `clip.checkpoint` names; None where it says `auto`."""
    return None if context.profile.clip.checkpoint == "auto" else load_encoder(context, choose_clip(context))


def choose_run(context: RunContext, stage: str, clip: LoadedClip | None, *, any_base: bool = False) -> Selection | None:
    """The best run of `stage` that fits the profile, its model (or `any_base`), and `clip` if given.

    Says what was passed over. Raises DataError or MachineError where the profile's model cannot be loaded.
    """
    found, passed = find_candidates(context.profile, stage, context.protocol.bests[0])
    fit, unfit = (found, []) if any_base else _with_base(context, found)
    if clip is not None and stage == "combiner":
        own = clip.encoder.fingerprints().both
        unfit += [PassedOver(one.name, Reason.BASE, f"with fingerprint {one.clip}") for one in fit if one.clip != own]
        fit = [one for one in fit if one.clip == own]
    conditions = Conditions.of(context)
    chosen = select(fit, conditions)
    passed += unfit
    if chosen is not None:
        _tell(context, chosen, [*passed, *outdone(fit, chosen, conditions)])
    elif passed:
        logger.warning(f"No {stage} run fits this profile. Skipped: {in_words(passed)}")
    return chosen


def choose_combiner(context: RunContext, asked: Path | None, clip: LoadedClip | None) -> Checkpoint:
    """The combiner to use: the file asked for, else the best finished run's; says which and why.

    Raises DataError where there is none that fits the data set and the CLIP (`clip`, if the profile names one).
    """
    profile = context.profile
    if asked is not None:
        checkpoint = load_checkpoint(asked, Kind.COMBINER)
        logger.info(f"Combiner: {asked} (given by --checkpoint)")
        return checkpoint
    chosen = choose_run(context, "combiner", clip)
    if chosen is None:
        raise DataError(
            f"found no combiner for {profile.dataset} with this CLIP",
            where=profile.workspace,
            remedy="Run `mlcl train-combiner` first, give --checkpoint FILE, or use --combining-function sum",
        )
    checkpoint = load_checkpoint(chosen.run.checkpoint, Kind.COMBINER)
    logger.log(NOTICE, f"Combiner: {chosen.run.name}, {best_in_words(context, chosen)}")
    return checkpoint


def best_in_words(context: RunContext, chosen: Selection) -> str:
    """Of how many a run is the best, and by which figure."""
    figure = f"{context.protocol.bests[0]} {chosen.run.score:.2f}"
    return f"the only one that fits, {figure}" if chosen.compared == 1 else f"best of {chosen.compared}, {figure}"


def _with_base(context: RunContext, found: Sequence[Candidate]) -> tuple[list[Candidate], list[PassedOver]]:
    """The runs whose CLIP was tuned from the profile's model, and the others."""
    if not found:
        return [], []
    own = context.base.fingerprint
    fit = [one for one in found if one.base == own]
    unfit = [
        PassedOver(one.name, Reason.BASE, f"with base {one.base}") if one.base else PassedOver(one.name, Reason.NO_BASE)
        for one in found
        if one.base != own
    ]
    return fit, unfit


def require_base(checkpoint: Checkpoint, base: BaseClip, workspace: Path) -> None:
    """Raises DataError where a tuned CLIP says that it was tuned from another model than `base`."""
    record = checkpoint.about.clip
    if record is not None and record.known_base not in (None, base.fingerprint):
        raise DataError(
            f"was tuned from a CLIP with fingerprint {record.known_base}, but clip.model "
            f"({_shown(base.model, workspace)}) has {base.fingerprint}",
            where=checkpoint.path,
            remedy="Set clip.model to the model that was tuned, or clip.checkpoint to none",
        )


def _nothing_tuned(wanted: Towers | None, passed: Sequence[PassedOver]) -> str:
    """Why the CLIP is untuned. What was passed over is a warning where that is not as the recipe goes."""
    if wanted is not None:
        if passed:
            logger.info(f"Skipped: {in_words(passed)}")
        return f"none has only its {_tower_names(wanted)} encoder tuned here; {START}"
    if not passed:
        return "none is tuned in this workspace yet"
    logger.warning(f"The CLIP is untuned: no tuned one fits. Skipped: {in_words(passed)}")
    return "no tuned one fits"


def _tell(context: RunContext, chosen: Selection, passed: Iterable[PassedOver]) -> None:
    """Says what was passed over, and warns where the chosen run is not what the profile would make."""
    run = chosen.run
    damaged = [one for one in passed if one.reason is Reason.UNREADABLE]
    if damaged:
        logger.warning(f"Skipped: {in_words(damaged)}")
    if others := [one for one in passed if one.reason is not Reason.UNREADABLE]:
        logger.info(f"Skipped: {in_words(others)}")
    if not run.finished:
        logger.warning(f"{run.name} is {run.state}, but no finished run fits: its best epoch so far is used")
    expected = context.profile.bad_images == "drop" and chosen.differences == "a pruned gallery"
    if chosen.differences and not expected:
        logger.warning(f"{run.name} was validated under other settings than the profile's: {chosen.differences}")


def _tower_names(towers: Towers | None) -> str:
    return "unknown towers" if towers is None else " and ".join(sorted(towers, reverse=True)) or "nothing"


def _shown(path: str | Path, workspace: Path) -> str:
    return str(path.relative_to(workspace)) if isinstance(path, Path) and path.is_relative_to(workspace) else str(path)
