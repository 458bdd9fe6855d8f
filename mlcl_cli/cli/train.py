"""`mlcl finetune` and `mlcl train-combiner`."""

from typing import TYPE_CHECKING, Annotated

import typer

from mlcl_cli.cli.completion import runs_or_files
from mlcl_cli.cli.error_boundary import open_profile
from mlcl_cli.cli.options import (
    BatchOption,
    DebugOption,
    DryRunOption,
    EncoderName,
    EpochsOption,
    JsonOption,
    ProfileOption,
    QuietOption,
    RateOption,
    ResumeOption,
    RunOption,
    SetOption,
    as_overrides,
)
from mlcl_cli.config import Profile
from mlcl_cli.errors import UsageError
from mlcl_cli.progress import Progress

if TYPE_CHECKING:
    from mlcl_cli.workflows.stages import Stage


def finetune(
    encoder: Annotated[EncoderName | None, typer.Option(help="What to train; else the profile's.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN|FILE|none",
            help="The tuned CLIP to start from, or none; else the best with only the other encoder tuned.",
            autocompletion=runs_or_files("finetune"),
        ),
    ] = None,
    epochs: EpochsOption = None,
    batch_size: BatchOption = None,
    learning_rate: RateOption = None,
    resume: ResumeOption = None,
    run: RunOption = None,
    dry_run: DryRunOption = False,
    profile: ProfileOption = None,
    overrides: SetOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Stage 1: fine-tune CLIP's encoders on the element-wise sum."""
    flags = as_overrides("finetune", epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    loaded, terminal = open_profile(profile, [*(overrides or []), *flags], quiet=quiet)
    if start is not None:
        _reject_resume("--from", resume, run)

    from mlcl_cli.workflows.run_names import checkpoint_named
    from mlcl_cli.workflows.stages import fine_tuning

    checkpoint = start if start is None or start == "none" else checkpoint_named(loaded, start, "finetune")
    stage = fine_tuning(encoder or loaded.finetune.encoder, checkpoint)
    _train(loaded, terminal, stage, resume, run, dry_run=dry_run, json=json)


def train_combiner(
    epochs: EpochsOption = None,
    batch_size: BatchOption = None,
    learning_rate: RateOption = None,
    resume: ResumeOption = None,
    run: RunOption = None,
    dry_run: DryRunOption = False,
    profile: ProfileOption = None,
    overrides: SetOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Stage 2: train the multi-level combiner on the best tuned CLIP."""
    flags = as_overrides("combiner", epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    loaded, terminal = open_profile(profile, [*(overrides or []), *flags], quiet=quiet)

    from mlcl_cli.workflows.stages import COMBINER

    _train(loaded, terminal, COMBINER, resume, run, dry_run=dry_run, json=json)


def _train(
    profile: Profile,
    progress: Progress,
    stage: "Stage",
    resume: bool | None,
    run: str | None,
    *,
    dry_run: bool,
    json: bool,
) -> None:
    from mlcl_cli.cli.render import show
    from mlcl_cli.workflows.dry_run import estimate
    from mlcl_cli.workflows.resume import Resume
    from mlcl_cli.workflows.run_names import run_named
    from mlcl_cli.workflows.train import train

    if dry_run:
        _reject_resume("--dry-run", resume, run)
        result = estimate(profile, progress, stage)
        show(result.as_json() if json else result.in_words(), json=json)
        return
    automatic = profile.resume == "auto" and resume is None
    named = None if run is None else run_named(profile, run, stage.name)
    how = Resume(wanted=bool(resume) or automatic, optional=automatic, run=named)
    show(train(profile, progress, stage, resume=how).as_json(), json=json)


def _reject_resume(option: str, resume: bool | None, run: str | None) -> None:
    """Raise UsageError if a run is to be resumed."""
    if resume or run:
        given = "--resume" if resume else "--run"
        raise UsageError(f"cannot be combined with {given}", where=option, remedy=f"Leave out {option} or {given}")
