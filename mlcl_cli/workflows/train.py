"""`mlcl finetune` and `mlcl train-combiner`: prepare the data, train, and describe the run."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from pydantic import JsonValue

from mlcl_cli.atomic_files import to_json, write_file
from mlcl_cli.config import Profile, dump
from mlcl_cli.errors import DataError
from mlcl_cli.progress import Progress
from mlcl_cli.runs.description import Kind, TrainingDescription
from mlcl_cli.runs.listing import FOLDERS
from mlcl_cli.runs.run import Run, RunSettings, require_new_name, require_room
from mlcl_cli.runs.scalars import require_installed
from mlcl_cli.runs.summary import BestCheckpoint
from mlcl_cli.signals import defer_signals
from mlcl_cli.training.loop import fit
from mlcl_cli.workflows.checkpoint_selection import ClipChoice
from mlcl_cli.workflows.provenance import Circumstances, data_digest, versions
from mlcl_cli.workflows.resume import (
    ResumableRun,
    Resume,
    find_resumable,
    identity,
    require_same,
    save_contents,
)
from mlcl_cli.workflows.run_context import RunContext, files_of
from mlcl_cli.workflows.stages import Frozen, Stage, TrainingSetup

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The run that a training command leaves, and its best epoch."""

    command: str
    dataset: str
    protocol: str
    run: Path
    epochs: int
    best: BestCheckpoint
    seconds: float
    circumstances: Circumstances

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints (metrics: METHOD.md, Section 8.4)."""
        best = self.best
        return {
            "command": self.command,
            "dataset": self.dataset,
            "protocol": self.protocol,
            "run": str(self.run),
            "epochs": self.epochs,
            "best": {"epoch": best.epoch, "score": best.score, "checkpoint": str(self.run / best.checkpoint)},
            **asdict(self.circumstances),
            "metrics": best.metrics,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Label:
    """What a user calls a run: the name of its folder, by default the data set and the time; and a note."""

    name: str | None = None
    note: str | None = None


UNLABELED = Label()


@dataclass(frozen=True)
class Prepared:
    """What runs on the same data and CLIP share: what no training changes, and digests of the images by name."""

    context: RunContext
    frozen: Frozen
    image_digests: Mapping[str, str]

    @classmethod
    def of(cls, context: RunContext, frozen: Frozen) -> Self:
        """Take the digests of all images that the runs' data names."""
        data = frozen.data
        files = dict(files_of([data.train, data.val], [*data.train.images(), *data.val.images()]))
        return cls(context, frozen, context.content_digests(files))

    def identity(self, profile: Profile, stage: Stage) -> dict[str, JsonValue]:
        """What a run under `profile` may not change when it is resumed."""
        data = self.frozen.data
        clip = self.frozen.store.fingerprints.both
        return identity(profile, stage.kind, [data.train, data.val], clip, self.image_digests)


def train(
    profile: Profile, progress: Progress, stage: Stage, *, resume: Resume | Path = Resume.NONE, label: Label = UNLABELED
) -> TrainingResult:
    """Train a stage, in a new run or in an unfinished one.

    Raises UsageError for a name that is taken or not usable, MachineError for a logger that is not installed.
    """
    require_installed(profile.loggers)
    context = RunContext.open(profile, progress)
    unfinished = find_resumable(profile, stage.kind, resume, stage.encoder, label.name)
    if unfinished is None and label.name is not None:
        require_new_name(profile.workspace / FOLDERS[stage.kind], label.name)
    train_split, val_split = context.split("train"), context.split("val")
    # A batch larger than the training split is an error, raised here before anything is encoded.
    stage.plan(profile).steps(len(train_split.triplets))
    # A resumed run keeps its CLIP, or takes the profile's if its model has moved; fingerprints are compared later.
    choice = ClipChoice.of_run(unfinished.stored.summary.clip, profile) if unfinished else None
    prepared = Prepared.of(context, stage.freeze(context, train_split, val_split, choice))
    return train_prepared(prepared, profile, stage, unfinished, label)


def train_prepared(
    prepared: Prepared, profile: Profile, stage: Stage, unfinished: ResumableRun | None, label: Label = UNLABELED
) -> TrainingResult:
    """Train one run on what is `prepared`, whose profile may differ from the run's in what is trained and how."""
    context = prepared.context.for_run(profile)
    setup = stage.set_up(context, prepared.frozen)
    data = setup.data
    stored = unfinished.stored.summary.note if unfinished else None
    settings = _settings(context, stage, setup, prepared.identity(profile, stage), label.note or stored)
    with _start(context, setup, settings, unfinished, prepared.image_digests, label.name) as run:
        seconds = fit(setup.trainer, run, setup.validate, context.progress)
    return TrainingResult(
        command=stage.command,
        dataset=profile.dataset,
        protocol=data.protocol.label,
        run=run.folder,
        epochs=setup.trainer.plan.epochs,
        best=run.best,
        seconds=seconds,
        circumstances=context.circumstances(settings.description.data or {}, combiner=stage.kind is Kind.COMBINER),
    )


def _settings(
    context: RunContext, stage: Stage, setup: TrainingSetup, identity: dict[str, JsonValue], note: str | None
) -> RunSettings:
    """What a run trains and keeps, whether it is new or resumed."""
    profile, data, fingerprints = context.profile, setup.data, setup.store.fingerprints
    with defer_signals():  # pydantic turns an interruption within it into an error of its own
        values = profile.model_dump(mode="json")
    description = TrainingDescription(
        protocol=data.protocol.name,
        pruned=data.protocol.pruned,
        clip=setup.clip.record(profile.workspace, fingerprints),
        dataset=profile.dataset,
        seed=profile.seed,
        image=context.image_record,
        device=str(context.compute),
        precision=context.compute.precision,
        versions=versions(),
        profile=values,
        data={split.name: data_digest(split) for split in (data.train, data.val)},
        identity=identity,
    ).model_copy(update={**setup.about, **({"note": note} if note else {})})
    every, keep = profile.checkpoints.every_epochs, profile.checkpoints.keep_every
    return RunSettings(
        kind=stage.kind,
        command=stage.command_line,
        epochs=setup.trainer.plan.epochs,
        metrics=data.protocol.bests,
        description=description,
        epochs_between_states=every if isinstance(every, int) else None,
        minutes_between_states=profile.checkpoints.every_minutes,
        keep_every=keep if isinstance(keep, int) else None,
        loggers=(*(("tensorboard",) if profile.tensorboard == "auto" else ()), *profile.loggers),
    )


def _start(
    context: RunContext,
    setup: TrainingSetup,
    settings: RunSettings,
    unfinished: ResumableRun | None,
    image_digests: Mapping[str, str],
    name: str | None,
) -> Run:
    """A new run, or the unfinished one with its trainer restored. Raises MachineError if the disk is nearly full."""
    profile, trainer, data = context.profile, setup.trainer, setup.data
    require_room(profile.workspace, trainer.bytes_of_state())
    if unfinished is not None:
        require_same(unfinished.stored, data.protocol.name, settings.description.identity or {}, image_digests)
        run = Run(unfinished.stored.folder, settings, unfinished.stored.summary.created)
        state = run.resume(unfinished.state)
        try:
            trainer.restore(state)
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            what = f"the state does not fit the run ({type(error).__name__})"
            raise DataError(what, where=run.folder, remedy="Resume from another state with --run FILE") from error
        where = f"epoch {state.epoch}" + (f", step {state.steps_done}" if state.steps_done else "")
        logger.info(f"Run: {run.folder}, resuming at {where}")
        return run
    parent = profile.workspace / FOLDERS[settings.kind]
    with defer_signals():
        text = dump(profile)
    run = Run.create(parent, profile.dataset, text, settings, name=name)
    save_contents(run.folder, image_digests)
    logger.info(f"Run: {run.folder}")
    if data.bad:
        dropped = [{"image": bad.name, "path": str(bad.path), "reason": bad.reason} for bad in data.bad.values()]
        write_file(run.folder / "dropped.json", to_json(dropped, indent=2))
    return run
