"""The commands that follow from the data sets: preparations of raw downloads, and submissions for test servers."""

from typing import Annotated

import typer

from mlcl_cli.cli.command import CommandContext, command
from mlcl_cli.cli.options import CheckpointOption, CombiningOption
from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.definition import Preparation, Submission


def register_preparations(app: typer.Typer) -> None:
    """Register the command that prepares each data set's raw download, whichever data set the profile chooses."""
    for dataset in DATASETS.values():
        if dataset.preparation:
            _add_preparation(app, dataset.name, dataset.preparation)


def register_submissions(app: typer.Typer) -> None:
    """Register the command that answers each test split for the data set's server."""
    for dataset in DATASETS.values():
        if dataset.submission:
            _add_submission(app, dataset.submission)


def _add_preparation(app: typer.Typer, dataset: str, preparation: Preparation) -> None:
    def prepare(context: CommandContext) -> None:
        profile = context.profile
        from mlcl_cli.workflows.prepare import prepare

        context.show(prepare(profile, dataset, preparation, context.progress))

    prepare.__doc__ = preparation.help
    command(app, preparation.command, f"mlcl {preparation.command} --json")(prepare)


def _add_submission(app: typer.Typer, submission: Submission) -> None:
    def _answer(
        context: CommandContext,
        name: Annotated[str | None, typer.Option(help="The submission's name. Default: the run's name.")] = None,
        checkpoint: CheckpointOption = None,
        combining_function: CombiningOption = "combiner",
    ) -> None:
        profile = context.profile
        from mlcl_cli.runs.description import Kind
        from mlcl_cli.workflows.run_names import checkpoint_named
        from mlcl_cli.workflows.submit import submit as run

        result = run(
            profile,
            context.progress,
            submission.command,
            name=name,
            combining_function=combining_function,
            checkpoint=None if checkpoint is None else checkpoint_named(profile, checkpoint, Kind.COMBINER),
        )
        context.show(result.as_json())

    _answer.__doc__ = submission.help
    command(app, submission.command, f"mlcl {submission.command} --name first-try")(_answer)
