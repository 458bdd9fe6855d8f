"""`mlcl finetune` and `mlcl train-combiner`."""

from pathlib import Path
from typing import Annotated, Any

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
from mlcl_cli.errors import UsageError


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
    if start is not None and (resume or run):
        raise UsageError("a resumed run keeps its start", where="--from", remedy="Leave out --from or --resume")
    origin = start if start is None or start == "none" else _checkpoint(loaded, start)
    how = {"encoder": encoder or loaded.finetune.encoder, "start": origin}
    _train(loaded, terminal, "finetune", _resume(loaded, "finetune", resume, run), dry_run=dry_run, json=json, **how)


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
    _train(loaded, terminal, "combiner", _resume(loaded, "combiner", resume, run), dry_run=dry_run, json=json)


def _train(profile: Any, terminal: Any, stage: str, resume: Any, *, dry_run: bool, json: bool, **how: Any) -> None:
    from mlcl_cli.cli.render import show

    if dry_run:
        from mlcl_cli.workflows.dry_run import dry_run as rehearse

        result = rehearse(profile, terminal, stage, **how)
        show(result.as_json() if json else result.in_words(), json=json)
    else:
        from mlcl_cli.workflows import train

        run = train.train_combiner if stage == "combiner" else train.finetune
        show(run(profile, terminal, resume=resume, **how).as_json(), json=json)


def _resume(profile: Any, stage: str, flag: bool | None, run: str | None) -> Any:
    from mlcl_cli.runs.description import Kind
    from mlcl_cli.workflows.resume import Resume
    from mlcl_cli.workflows.run_names import run_named

    automatic = profile.resume == "auto" and flag is None
    named = None if run is None else run_named(profile, run, Kind.COMBINER if stage == "combiner" else Kind.CLIP)
    return Resume(wanted=bool(flag) or automatic, optional=automatic, run=named)


def _checkpoint(profile: Any, text: str) -> Path:
    from mlcl_cli.runs.description import Kind
    from mlcl_cli.workflows.run_names import checkpoint_named

    return checkpoint_named(profile, text, Kind.CLIP)
