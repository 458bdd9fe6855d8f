"""`mlcl runs`, its subcommands, and `mlcl report`."""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from mlcl_cli.cli.command_classes import Command, Group
from mlcl_cli.cli.completion import complete_runs
from mlcl_cli.cli.error_boundary import error_boundary, open_profile
from mlcl_cli.cli.options import DebugOption, JsonOption, ProfileOption, QuietOption, SetOption, absolute
from mlcl_cli.errors import UsageError, some
from mlcl_cli.formatting import counted
from mlcl_cli.streams import printable

logger = logging.getLogger(__name__)

# The settings that are the machine's, not a run's, beside the sections that say where data lies.
MACHINE_SETTINGS = ("dataset", "workspace", "workers", "device", "bad_images", "image.max_megapixels")
app = typer.Typer(cls=Group, help="List the workspace's runs; show or remove one.", invoke_without_command=True)


NameArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="The run's name, or enough of its beginning.", autocompletion=complete_runs)
]


@app.callback(epilog="Example:  mlcl runs")
@error_boundary
def runs(
    context: typer.Context,
    profile: ProfileOption = None,
    overrides: SetOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """List the workspace's runs; show or remove one."""
    if context.invoked_subcommand is not None:
        return
    from mlcl_cli.cli.render import show_json, show_runs
    from mlcl_cli.runs.listing import list_runs

    loaded, _ = open_profile(profile, overrides)
    found = {"command": "runs", "runs": [run.as_json() for run in list_runs(loaded)]}
    (show_json if json else show_runs)(found)


@app.command("show", cls=Command, epilog="Example:  mlcl runs show cirr-20261123")
@error_boundary
def show(
    name: NameArgument,
    profile: ProfileOption = None,
    overrides: SetOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Show all that is known of a run."""
    from mlcl_cli.cli.render import show_facts, show_json
    from mlcl_cli.runs.listing import find_run

    run = find_run(open_profile(profile, overrides)[0], name)
    told: dict[str, Any] = {**run.as_json(), "folder": str(run.folder), **run.summary, "state": run.state}
    if run.problem is not None:
        told["problem"] = str(run.problem)
    if json:
        show_json(told)
    else:  # the whole profile is in the run's profile.yaml
        show_facts({key: value for key, value in told.items() if key not in ("command", "profile", "identity")})


@app.command("rm", cls=Command, epilog="Example:  mlcl runs rm cirr-20261123-120000")
@error_boundary
def remove(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    profile: ProfileOption = None,
    overrides: SetOption = None,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Delete a run's folder, after asking."""
    from mlcl_cli.cli.render import say
    from mlcl_cli.runs.listing import dependents, find_run, remove_run, require_removable

    loaded, _ = open_profile(profile, overrides)
    run = find_run(loaded, name)
    require_removable(loaded, run)
    told = f"{run.folder} ({run.bytes / 2**20:,.0f} MB, {run.state})"
    if needing := dependents(loaded, run):
        names = some([f"{other.stage}/{other.folder.name}" for other in needing])
        logger.warning(f"{counted(len(needing), 'run')} began with its CLIP and cannot be used without it: {names}")
    if yes:
        logger.info(f"Run: {told}")
    elif not typer.confirm(printable(f"Delete {told}?")):
        say("Nothing was deleted")
        return
    remove_run(loaded, run)
    say(f"Deleted {run.folder}")


def report(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Runs, by name; else the best combiner's.", autocompletion=complete_runs),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All runs of the workspace, side by side.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="The .html file to write; else one in the workspace's reports.")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Queries of each kind on a retrieval sheet.")] = 8,
    profile: ProfileOption = None,
    overrides: SetOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Write a page that shows what runs have learned: figures, curves, and what is found for sampled queries."""
    if every and names:
        raise UsageError("names are given, too", where="--all", remedy="Leave one of them out")
    from mlcl_cli.config.schema import DATA_SECTIONS

    effective = (*MACHINE_SETTINGS, *DATA_SECTIONS)
    if ignored := [text for text in overrides or [] if not text.startswith(effective)]:
        remedy = "A run is shown with its own settings, except for " + ", ".join(effective)
        raise UsageError("has no effect on a report", where=f"--set {ignored[0]}", remedy=remedy)
    loaded, terminal = open_profile(profile, overrides, quiet=quiet)
    from mlcl_cli.cli.render import say, show_json
    from mlcl_cli.workflows.report import write_report

    result = write_report(loaded, terminal, names or (), every=every, output=absolute(output), sample=queries)
    if json:
        show_json(result.as_json())
    else:
        say(f"Report: {result.path}")
