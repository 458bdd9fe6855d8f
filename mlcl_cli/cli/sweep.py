"""`mlcl sweep`."""

import logging
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from mlcl_cli.cli.command import WITHOUT_PROFILE, CommandContext, command
from mlcl_cli.cli.completion import complete_override
from mlcl_cli.cli.options import absolute

logger = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    example = "mlcl sweep --set 'combiner.sscl=[mid,high]|[]' --seeds 0-4"
    command(app, "sweep", example, shared=("profile_path", *WITHOUT_PROFILE))(sweep)


def sweep(
    context: CommandContext,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE|VALUE",
            help="Override a profile key; | separates values to try. Can be repeated.",
            autocompletion=complete_override,
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="SEEDS", help="Seeds, as 0-4 or 0,2,5. Default: the profile's.")
    ] = None,
    stage: Annotated[Literal["train-combiner", "finetune"], typer.Option(help="What to train.")] = "train-combiner",
    markdown: Annotated[Path | None, typer.Option(help="Write the table as Markdown to this file.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Write the table as LaTeX to this file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the unrounded table to this .csv file.")] = None,
) -> None:
    """Train many settings and seeds, and compare the settings.

    Every combination of the values is trained with every seed. What no training
    changes is computed once. After an interruption, the same command continues:
    finished runs are not repeated. Prints mean and standard deviation over the
    seeds, and a paired bootstrap against the first setting.
    """
    from mlcl_cli.config import find_profile
    from mlcl_cli.workflows.sweep_grid import read_grid

    path, reason = find_profile(context.profile_path, os.environ, Path.cwd())
    grid = read_grid(path, settings or (), seeds)
    progress = context.progress
    logger.info(f"Profile: {path} ({reason})")

    from mlcl_cli.cli.render_runs import show_sweep
    from mlcl_cli.workflows.sweep import run_sweep
    from mlcl_cli.workflows.sweep_formats import Format, require_files, write_tables

    given = {Format.MARKDOWN: absolute(markdown), Format.LATEX: absolute(latex), Format.CSV: absolute(csv)}
    files = {option: file for option, file in given.items() if file is not None}
    require_files(files)
    result = run_sweep(grid, stage, progress)
    write_tables(result, files)
    context.show(result.as_json(), lambda: show_sweep(result))
