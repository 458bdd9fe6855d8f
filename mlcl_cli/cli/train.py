"""`mlcl finetune` and `mlcl train-combiner`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlcl_cli.cli.command import CommandContext, Setting, command
from mlcl_cli.cli.completion import runs_or_files
from mlcl_cli.cli.options import DryRunOption, EncoderName, ResumeOption, RunOption
from mlcl_cli.errors import UsageError

if TYPE_CHECKING:
    from mlcl_cli.config import Profile
    from mlcl_cli.workflows.resume import Resume


def finetune(
    context: CommandContext,
    encoder: Annotated[EncoderName | None, typer.Option(help="What to train. Default: the profile's.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN|FILE|none",
            help="The tuned CLIP to start from, or none. Default: the best with only the other encoder tuned.",
            autocompletion=runs_or_files("finetune"),
        ),
    ] = None,
    resume: ResumeOption = None,
    run: RunOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Stage 1: fine-tune CLIP's encoders on the element-wise sum."""
    profile = context.profile
    if start is not None and (resume or run):
        raise UsageError("cannot be combined with --resume", where="--from", remedy="A resumed run keeps its start")
    from mlcl_cli.runs.description import Kind
    from mlcl_cli.workflows.run_names import checkpoint_named

    origin = start if start is None or start == "none" else checkpoint_named(profile, start, Kind.CLIP)
    how = {"encoder": encoder or profile.finetune.encoder, "start": origin}
    _train(context, "finetune", _resume(profile, "finetune", resume, run), dry_run=dry_run, **how)


def train_combiner(
    context: CommandContext, resume: ResumeOption = None, run: RunOption = None, dry_run: DryRunOption = False
) -> None:
    """Stage 2: train the multi-level combiner on the best tuned CLIP."""
    _train(context, "combiner", _resume(context.profile, "combiner", resume, run), dry_run=dry_run)


def register(app: typer.Typer) -> None:
    """Add both commands to `app`."""
    command(app, "finetune", "mlcl finetune --encoder text", settings=_settings("finetune"))(finetune)
    command(app, "train-combiner", "mlcl train-combiner --epochs 300", settings=_settings("combiner"))(train_combiner)


def _settings(section: str) -> dict[str, Setting]:
    options = {
        "epochs": Annotated[int | None, typer.Option(help="Epochs. Default: the profile's.")],
        "batch_size": Annotated[int | None, typer.Option(help="Triplets per batch. Default: the profile's.")],
        "learning_rate": Annotated[float | None, typer.Option(help="Learning rate. Default: the profile's.")],
    }
    return {name: Setting(f"{section}.{name}", option) for name, option in options.items()}


def _train(context: CommandContext, stage: str, resume: "Resume", *, dry_run: bool, **how: Any) -> None:
    if dry_run:
        from mlcl_cli.workflows.dry_run import dry_run as rehearse

        result = rehearse(context.profile, context.progress, stage, **how)
        context.show(result.as_json() if context.json else result.in_words())
    else:
        from mlcl_cli.workflows import train

        run = train.train_combiner if stage == "combiner" else train.finetune
        context.show(run(context.profile, context.progress, resume=resume, **how).as_json())


def _resume(profile: "Profile", stage: str, flag: bool | None, run: str | None) -> "Resume":
    from mlcl_cli.runs.description import Kind
    from mlcl_cli.workflows.resume import Resume
    from mlcl_cli.workflows.run_names import run_named

    automatic = profile.resume == "auto" and flag is None
    named: Path | None = (
        None if run is None else run_named(profile, run, Kind.COMBINER if stage == "combiner" else Kind.CLIP)
    )
    return Resume(wanted=bool(flag) or automatic, optional=automatic, run=named)
