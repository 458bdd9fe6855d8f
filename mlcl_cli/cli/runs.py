"""`mlcl runs`, its subcommands, and `mlcl report`."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from mlcl_cli.cli.command import CommandContext, command, with_context
from mlcl_cli.cli.command_classes import Group
from mlcl_cli.cli.completion import complete_runs
from mlcl_cli.cli.options import absolute
from mlcl_cli.errors import UsageError, some
from mlcl_cli.formatting import counted, size
from mlcl_cli.streams import printable

logger = logging.getLogger(__name__)

# The settings that belong to the machine, not to a run, besides the sections that locate data.
MACHINE_SETTINGS = ("dataset", "workspace", "workers", "device", "bad_images", "image.max_megapixels")
SHARED = ("profile_path", "overrides", "json", "debug")
app = typer.Typer(cls=Group, help="List the workspace's runs; show or delete one.", invoke_without_command=True)

NameArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="The run's name or the beginning of it.", autocompletion=complete_runs)
]


def runs(context: CommandContext, typer_context: typer.Context) -> None:
    """List the workspace's runs; show or delete one."""
    if typer_context.invoked_subcommand is not None:
        return
    from mlcl_cli.cli.render_runs import show_runs
    from mlcl_cli.runs.differences import in_words
    from mlcl_cli.runs.listing import differing, list_runs

    stored = list_runs(context.profile.workspace)
    settings = differing(stored)
    words = {run: in_words(settings[run]) for run in settings}
    rows = [{**run.as_json(), "differs_in": dict(settings.get(run, {}))} for run in stored]
    context.show({"command": "runs", "runs": rows}, lambda: show_runs(stored, words))


app.callback(epilog="Example:  mlcl runs")(with_context(runs, SHARED, {}))


@command(app, "show", "mlcl runs show cirr-20261123", shared=SHARED)
def show(context: CommandContext, name: NameArgument) -> None:
    """Show everything about a run."""
    from mlcl_cli.runs.listing import find_run

    run = find_run(context.profile.workspace, name)
    summary = run.summary.as_json() if run.problem is None else {"problem": str(run.problem)}
    result: dict[str, object] = {**run.as_json(), "folder": str(run.folder), **summary, "state": run.state}
    if not context.json:  # the whole profile is in the run's profile.yaml
        result = {key: value for key, value in result.items() if key not in ("command", "profile", "identity", "bytes")}
        result["size"] = size(run.size)
    context.show(result)


@command(app, "rm", "mlcl runs rm cirr-20261123-120000", shared=("profile_path", "overrides", "debug"))
def remove(
    context: CommandContext,
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a run's folder after asking for confirmation."""
    from mlcl_cli.cli.render import say
    from mlcl_cli.runs.listing import dependents, find_run, remove_run, require_removable

    workspace = context.profile.workspace
    run = find_run(workspace, name)
    require_removable(workspace, run)
    description = f"{run.folder} ({size(run.size)}, {run.state})"
    if needing := dependents(workspace, run):
        names = some([other.name for other in needing])
        logger.warning(f"{counted(len(needing), 'run')} started from its CLIP and cannot be used without it: {names}")
    if yes:
        logger.info(f"Run: {description}")
    elif not _confirmed(printable(f"Delete {description}?")):
        say("Nothing was deleted")
        return
    remove_run(workspace, run)
    say(f"Deleted {run.folder}")


def _confirmed(question: str) -> bool:
    """The answer to `question`. Raises UsageError if there is none, as with an empty standard input."""
    try:
        return typer.confirm(question)
    except typer.Abort as error:
        typer.echo()
        remedy = "Use --yes to delete without confirmation"
        raise UsageError("nothing was deleted, because the question was not answered", remedy=remedy) from error


def report(
    context: CommandContext,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Names of runs. Default: the best finished combiner's run.",
            autocompletion=complete_runs,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show all runs of the workspace side by side.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="The .html file to write. Default: one in the workspace's reports.")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="How many queries of each kind a retrieval sheet shows.")] = 8,
) -> None:
    """Write an HTML report on runs: metrics, curves, and the images retrieved for sampled queries."""
    if every and names:
        raise UsageError("cannot be combined with run names", where="--all", remedy="Leave one of them out")
    from mlcl_cli.config.schema import DATA_KEYS

    effective = (*MACHINE_SETTINGS, *DATA_KEYS)
    if ignored := [text for text in context.overrides or () if not text.startswith(effective)]:
        remedy = "A run is shown with its own settings, except for " + ", ".join(effective)
        raise UsageError("has no effect on a report", where=f"--set {ignored[0]}", remedy=remedy)
    profile = context.profile
    from mlcl_cli.cli.render import say
    from mlcl_cli.workflows.report import write_report

    result = write_report(profile, context.progress, names or (), every=every, output=absolute(output), sample=queries)
    context.show(result.as_json(), lambda: say(f"Report: {result.path}"))
