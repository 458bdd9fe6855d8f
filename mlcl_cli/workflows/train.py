"""`mlcl finetune` and `mlcl train-combiner`: set up, build, fit."""

import logging
from collections.abc import Mapping
from typing import Any

from mlcl_cli.atomic_files import to_json, write_file
from mlcl_cli.config import Profile, dump
from mlcl_cli.errors import DataError
from mlcl_cli.progress import Progress
from mlcl_cli.runs.run import Interval, Run, require_room
from mlcl_cli.training.loop import fit
from mlcl_cli.workflows.checkpoint_selection import ClipChoice
from mlcl_cli.workflows.provenance import data_digest
from mlcl_cli.workflows.resume import (
    NO_RESUME,
    ResumableRun,
    Resume,
    find_resumable,
    identity,
    require_same,
    save_contents,
)
from mlcl_cli.workflows.run_context import RunContext
from mlcl_cli.workflows.stages import Stage, TrainingSetup
from mlcl_cli.workflows.training_result import TrainingResult

logger = logging.getLogger(__name__)


def train(profile: Profile, progress: Progress, stage: Stage, *, resume: Resume = NO_RESUME) -> TrainingResult:
    """Train a stage, in a new run or in an unfinished one."""
    context = RunContext.open(profile, progress)
    unfinished = find_resumable(profile, stage.name, resume, stage.options)
    train, val = context.split("train"), context.split("val")
    stage.plan(profile).steps(len(train.triplets))  # a batch that is too large is an error before anything is encoded
    choice = _resumed_clip(profile, unfinished) if unfinished else stage.choose_clip(context)

    setup = stage.set_up(context, train, val, choice)
    data = setup.data
    images = context.content_digests(dict(data.files([*data.train.images(), *data.val.images()])))

    parts = _parts(context, stage, setup, images)
    with _begun(context, stage, setup, parts, unfinished, images) as run:
        seconds = fit(setup.trainer, run, setup.validate, progress)
    return TrainingResult(
        command=stage.command,
        dataset=profile.dataset,
        protocol=data.protocol.name,
        run=run.folder,
        epochs=setup.trainer.plan.epochs,
        best=run.best,
        seconds=seconds,
        circumstances=context.circumstances(parts["about"]["data"], combiner=stage.has_combiner),
    )


def _resumed_clip(profile: Profile, unfinished: ResumableRun) -> ClipChoice:
    """The CLIP that a run began with, or the profile's if its model has moved; fingerprints are compared later."""
    return unfinished.clip(profile.workspace).found_at(profile.clip.model)


def _parts(context: RunContext, stage: Stage, ready: TrainingSetup, images: Mapping[str, str]) -> dict[str, Any]:
    """What a run is made of, whether it is new or resumed."""
    profile, data, fingerprint = context.profile, ready.data, ready.store.fingerprints["both"]
    about = {
        "protocol": data.protocol.name,
        "pruned": data.protocol != context.protocol,
        "clip": ready.clip.describe(profile.workspace, ready.store.fingerprints),
        **context.about(),
        "data": {split.name: data_digest(split) for split in (data.train, data.val)},
        **ready.about,
        "identity": identity(profile, stage.name, [data.train, data.val], fingerprint, images),
    }
    every, keep = profile.checkpoints.every_epochs, profile.checkpoints.keep_every
    return {
        "kind": stage.kind,
        "command": stage.command_line,
        "epochs": ready.trainer.plan.epochs,
        "bests": data.protocol.bests,
        "about": about,
        "interval": Interval(every if isinstance(every, int) else None, profile.checkpoints.every_minutes),
        "keep_every": keep if isinstance(keep, int) else None,
        "tensorboard": profile.tensorboard == "auto",
    }


def _begun(
    context: RunContext,
    stage: Stage,
    ready: TrainingSetup,
    parts: Mapping[str, Any],
    unfinished: ResumableRun | None,
    images: Mapping[str, str],
) -> Run:
    """A new run, or an unfinished one with its trainer restored. Raises MachineError if the disk has no room for it."""
    profile, trainer, data = context.profile, ready.trainer, ready.data
    require_room(profile.workspace, trainer.bytes_of_state())
    if unfinished is not None:
        require_same(unfinished.stored, parts["about"]["identity"], images)
        run, state = Run.resume(unfinished.stored, unfinished.state, **parts)
        try:
            trainer.restore(state)
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            what = f"the state does not fit the run ({type(error).__name__})"
            raise DataError(what, where=run.folder, remedy="Resume from another state with --run FILE") from error
        where = f"epoch {state.epoch}" + (f", step {state.steps_done}" if state.steps_done else "")
        logger.info(f"Run: {run.folder}, taken up at {where}")
        return run
    run = Run.create(profile.workspace / stage.name, profile.dataset, dump(profile), **parts)
    save_contents(run.folder, images)
    logger.info(f"Run: {run.folder}")
    if data.bad:
        dropped = [{"image": bad.name, "path": str(bad.path), "reason": bad.reason} for bad in data.bad.values()]
        write_file(run.folder / "dropped.json", to_json(dropped, indent=2))
    return run
