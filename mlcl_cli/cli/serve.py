"""`mlcl serve`."""

import os
from typing import Annotated

import typer

from mlcl_cli.cli.command import CommandContext, command
from mlcl_cli.cli.indexing import CatalogOption, StoreOption
from mlcl_cli.cli.options import CheckpointOption
from mlcl_cli.cli.search import FunctionOption
from mlcl_cli.errors import UsageError

KEY = "MLCL_API_KEY"
LOCAL = ("127.0.0.1", "localhost", "::1")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    settings = {"catalog.store": StoreOption, "catalog.name": CatalogOption}
    command(app, "serve", "mlcl serve --port 8080", settings=settings)(serve)


def serve(
    context: CommandContext,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="How many processes answer.")] = 1,
    checkpoint: CheckpointOption = None,
    combining_function: FunctionOption = None,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch images at public web addresses that requests name.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name that a reverse proxy on this computer passes on; repeatable."),
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="How many queries are encoded together at most.")] = 64,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="How many searches wait at most; further ones get status 503.")
    ] = 256,
) -> None:
    """Serve searches of the catalog over HTTP, with a page to search in.

    Only this computer can reach it unless you set --host, which needs a key in
    $MLCL_API_KEY. Changes to the catalog always need the key.
    """
    key = os.environ.get(KEY) or None
    if host not in LOCAL and key is None:
        remedy = "Set it, so that nobody else can change the catalog, or leave --host out"
        raise UsageError(f"listening on {host} needs a key in ${KEY}", where="--host", remedy=remedy)
    if key is not None and len(key) < 16:
        raise UsageError("must have at least 16 characters", where=f"${KEY}", remedy="Choose a longer one")
    assert context.profile  # an error in it is reported before slow imports
    from mlcl_cli.runs.description import Kind
    from mlcl_cli.server.run import bind, run_server
    from mlcl_cli.server.settings import ServerSettings
    from mlcl_cli.workflows.run_names import checkpoint_named

    combiner = None if checkpoint is None else checkpoint_named(context.profile, checkpoint, Kind.COMBINER)
    names = tuple(name.lower() for name in allow_host or ())
    hosts = names if names or host in LOCAL else None
    settings = ServerSettings(
        context.profile, combining_function, combiner, key, allow_urls, hosts, max_batch, max_waiting
    )
    run_server(settings, bind(host, port), workers)
