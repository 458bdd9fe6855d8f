"""`mlcl search`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlcl_cli.cli.command import CommandContext, command
from mlcl_cli.cli.indexing import CatalogOption, StoreOption
from mlcl_cli.cli.options import CheckpointOption, Combining, absolute
from mlcl_cli.errors import UsageError

if TYPE_CHECKING:  # it imports torch
    from mlcl_cli.workflows.search_engine import SearchEngine

WhereOption = Annotated[
    str | None,
    typer.Option(
        metavar="CONDITIONS",
        help="Only rows that satisfy comparisons joined by and, as \"category = 'boots' and price < 80\".",
    ),
]
FunctionOption = Annotated[
    Combining | None,
    typer.Option(help="How to combine a query's image and text. Default: the best combiner, or sum if there is none."),
]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    settings = {"catalog.store": StoreOption, "catalog.name": CatalogOption}
    example = "mlcl search --image shoe.jpg 'in red, with laces' --where \"price < 80\""
    command(app, "search", example, settings=settings)(search)


def search(
    context: CommandContext,
    text: Annotated[
        str | None, typer.Argument(help="What to change in the reference; or what to find, without one.")
    ] = None,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="The reference: an image.")] = None,
    item: Annotated[str | None, typer.Option(metavar="ID", help="The reference: an item of the catalog.")] = None,
    where: WhereOption = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many rows to find.")] = 10,
    group_by: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Only the best row of each value of a field, or of product.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show the score of each part of the query alone.")] = False,
    checkpoint: CheckpointOption = None,
    combining_function: FunctionOption = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the hits to this .html file.")] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Keep the model loaded, and let hits become references.")
    ] = False,
) -> None:
    """Search the catalog that `mlcl index` made.

    A query is a reference image and words that change it, or one of them alone.
    The reference itself is not among the hits.
    """
    given = [part for part in (text and text.strip(), image, item) if part]
    if image is not None and item is not None:
        raise UsageError("--image and --item exclude each other", remedy="Give one of them")
    if interactive and html is not None:
        raise UsageError("--interactive and --html exclude each other", remedy="Leave one of them out")
    if not given and not interactive:
        raise UsageError("there is nothing to search for", remedy="Give words, --image FILE or --item ID")
    assert context.profile  # an error in it is reported before slow imports
    from mlcl_cli.workflows.retriever import Query
    from mlcl_cli.workflows.search import SearchSettings, require_page, run_search, write_sheet

    page = absolute(html)
    if page is not None:
        require_page(page)
    query = Query(text, None if image is None else image.expanduser(), item)
    settings = SearchSettings(where, k, group_by, explain)
    engine = _engine(context, combining_function, checkpoint)
    if interactive:
        from mlcl_cli.cli.search_session import SearchSession

        SearchSession(context, engine, query, settings).run()
        return
    result = run_search(engine, query, settings)
    if page is not None:
        write_sheet(result, page)
    from mlcl_cli.cli.render_search import show_search

    context.show(result.as_json(), lambda: show_search(result, page))


def _engine(context: CommandContext, combining_function: str | None, checkpoint: str | None) -> "SearchEngine":
    from mlcl_cli.runs.description import Kind
    from mlcl_cli.workflows.run_names import checkpoint_named
    from mlcl_cli.workflows.search_engine import SearchEngine

    combiner = None if checkpoint is None else checkpoint_named(context.profile, checkpoint, Kind.COMBINER)
    return SearchEngine.open(context.profile, context.progress, combining_function, combiner)
