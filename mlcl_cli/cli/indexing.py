"""`mlcl index`."""

import re
from pathlib import Path
from typing import Annotated

import typer

from mlcl_cli.cli.command import CommandContext, command
from mlcl_cli.errors import UsageError

SHARD = re.compile(r"(\d+)/(\d+)")
StoreOption = Annotated[
    str | None,
    typer.Option(metavar="URI", help="lancedb, or a server such as milvus://host:19530. Default: the profile's value."),
]
CatalogOption = Annotated[
    str | None, typer.Option("--catalog", metavar="NAME", help="The catalog's name. Default: the profile's value.")
]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    settings = {"catalog.store": StoreOption, "catalog.name": CatalogOption}
    command(app, "index", "mlcl index products.csv --columns id=sku,image=photo", settings=settings)(index)


def index(
    context: CommandContext,
    catalog: Annotated[
        list[Path],
        typer.Argument(
            metavar="CATALOG...",
            help="A folder of images, a table (.csv, .tsv, .jsonl, .parquet), or WebDataset's .tar files.",
        ),
    ],
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAME=COLUMN,...", help="The table's columns of id, image and product, as id=sku."),
    ] = None,
    sync: Annotated[
        bool, typer.Option("--sync", help="Also remove the rows that the catalog does not have any more.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Let --sync remove more than 20% of the rows.")] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Index only part I of N, from 0/N on, beside other processes.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Index on a Ray cluster: its address, auto, or local for this machine."),
    ] = None,
) -> None:
    """Encode your own catalog, to search it with `mlcl search`.

    Images and fields that have not changed since the last time are skipped, so
    run it again after every change, and after an interruption.
    """
    part = _shard(shard)
    if shard is not None and ray is not None:
        raise UsageError("--shard and --ray exclude each other", remedy="Give one of them")
    profile = context.profile
    from mlcl_cli.catalog.columns import parse_columns
    from mlcl_cli.catalog.opening import open_source
    from mlcl_cli.catalog.source import Shard

    paths = tuple(path.expanduser() for path in catalog)
    roles = {} if columns is None else parse_columns(columns)
    source = open_source(paths, roles, context.progress)
    source.check()  # before torch and the CLIP are loaded, so that a mistake in a table shows at once

    from mlcl_cli.cli.render_catalog import show_index
    from mlcl_cli.workflows.indexing import IndexOptions, run_indexing

    options = IndexOptions(
        catalog=paths,
        columns=roles,
        sync=sync,
        force=force,
        shard=Shard(*part),
    )
    result = run_indexing(profile, context.progress, options, source, ray)
    context.show(result.as_json(), lambda: show_index(result))


def _shard(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 1
    match = SHARD.fullmatch(text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UsageError(f"must be I/N with I from 0 to N - 1, as 0/4, not {text!r}", where="--shard")
    return int(match[1]), int(match[2])
