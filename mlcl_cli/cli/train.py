"""`mlcl finetune` and `mlcl train-combiner`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mlcl_cli.cli.command import CommandContext, command
from mlcl_cli.cli.completion import runs_or_files
from mlcl_cli.cli.options import DryRunOption, NameOption, NoteOption, ResumeOption, RunOption
from mlcl_cli.errors import UsageError

if TYPE_CHECKING:
    from mlcl_cli.workflows.stages import Stage


def register(app: typer.Typer) -> None:
    """Add both commands to `app`."""
    command(app, "finetune", "mlcl finetune --encoder text", settings=_settings("finetune"))(finetune)
    command(app, "train-combiner", "mlcl train-combiner --epochs 300", settings=_settings("combiner"))(train_combiner)


def _settings(section: str) -> dict[str, object]:
    return {
        f"{section}.epochs": Annotated[
            int | None, typer.Option(help="Number of epochs. Default: the profile's value.")
        ],
        f"{section}.batch_size": Annotated[
            int | None, typer.Option(help="Triplets per batch. Default: the profile's value.")
        ],
        f"{section}.learning_rate": Annotated[
            float | None, typer.Option(help="Learning rate. Default: the profile's value.")
        ],
    }


def finetune(
    context: CommandContext,
    encoder: Annotated[
        Literal["text", "image", "both"] | None,
        typer.Option(help="Which encoder to train. Default: the profile's value."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN|FILE|none",
            help="The tuned CLIP to start from, or none. Default: the best CLIP with only the other encoder tuned.",
            autocompletion=runs_or_files("finetune"),
        ),
    ] = None,
    name: NameOption = None,
    note: NoteOption = None,
    resume: ResumeOption = None,
    run: RunOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Stage 1: fine-tune CLIP's encoders on the element-wise sum."""
    profile = context.profile
    if start is not None:
        _reject_resume("--from", resume, run)
    from mlcl_cli.runs.description import Kind
    from mlcl_cli.workflows.run_names import checkpoint_named
    from mlcl_cli.workflows.stages import fine_tuning

    checkpoint = start if start is None or start == "none" else checkpoint_named(profile, start, Kind.CLIP)
    stage = fine_tuning(encoder or profile.finetune.encoder, checkpoint)
    _train(context, stage, resume, run, dry_run=dry_run, name=name, note=note)


def train_combiner(
    context: CommandContext,
    name: NameOption = None,
    note: NoteOption = None,
    resume: ResumeOption = None,
    run: RunOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Stage 2: train the multi-level combiner on the best tuned CLIP."""
    assert context.profile  # before torch is imported
    from mlcl_cli.workflows.stages import COMBINER

    _train(context, COMBINER, resume, run, dry_run=dry_run, name=name, note=note)


def _train(
    context: CommandContext,
    stage: "Stage",
    resume: bool | None,
    run: str | None,
    *,
    dry_run: bool,
    name: str | None,
    note: str | None,
) -> None:
    from mlcl_cli.cli.render import show_result
    from mlcl_cli.workflows.dry_run import estimate
    from mlcl_cli.workflows.resume import Resume
    from mlcl_cli.workflows.run_names import run_named
    from mlcl_cli.workflows.train import Label, train

    profile = context.profile
    if dry_run:
        _reject_resume("--dry-run", resume, run)
        figures = estimate(profile, context.progress, stage)
        context.show(figures.as_json(), lambda: show_result(figures.in_words()))
        return
    if name is not None and run is not None:
        raise UsageError("cannot be combined with --run", where="--name", remedy="A run that is resumed keeps its name")
    how: Resume | Path = Resume.NEWEST if resume else Resume.NONE
    if run is not None:
        how = run_named(profile, run, stage.kind)
    elif profile.resume == "auto" and resume is None:
        how = Resume.NEWEST_IF_ANY
    context.show(train(profile, context.progress, stage, resume=how, label=Label(name, note)).as_json())


def _reject_resume(option: str, resume: bool | None, run: str | None) -> None:
    """Raise UsageError if a run is to be resumed."""
    if resume or run:
        given = "--resume" if resume else "--run"
        raise UsageError(f"cannot be combined with {given}", where=option, remedy=f"Leave out {option} or {given}")
