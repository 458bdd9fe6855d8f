"""`mlcl make-triplets`."""

from pathlib import Path
from typing import Annotated

import typer

from mlcl_cli.cli.command import WITHOUT_PROFILE, CommandContext, command


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    example = "mlcl make-triplets products.csv --attributes color,sleeve --within category -o triplets.csv"
    command(app, "make-triplets", example, shared=WITHOUT_PROFILE)(make_triplets)


def make_triplets(
    context: CommandContext,
    products: Annotated[Path, typer.Argument(help="A table of products: .csv, .tsv, .jsonl or .parquet.")],
    attributes: Annotated[
        str, typer.Option(metavar="COLUMN,...", help="The columns whose values pairs of products differ in.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .csv or .tsv file to write.")],
    within: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Pair only products with the same value in this column.")
    ] = None,
    image: Annotated[str, typer.Option(metavar="COLUMN", help="The column of image names.")] = "image",
    changes: Annotated[
        int, typer.Option(min=1, max=2, help="How many attributes may differ between reference and target.")
    ] = 1,
    per_product: Annotated[int, typer.Option(min=1, help="At most this many triplets per reference.")] = 4,
    max_targets: Annotated[
        int, typer.Option(min=1, help="Skip a pair if more products than this are equally right targets.")
    ] = 5,
    templates: Annotated[
        Path | None, typer.Option(help="A YAML file of caption templates by attribute. Default: English ones.")
    ] = None,
    val_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="The fraction of products that only the validation split uses.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="The seed of pairs, wording and splits.")] = 0,
) -> None:
    """Make training triplets from a table of products and their attributes.

    Products that agree in all named columns but one become reference and target,
    with a caption such as "in red instead of blue". Products that are equally right
    become further targets.
    """
    from mlcl_cli.catalog.pairs import Rules
    from mlcl_cli.cli.render import show_made_triplets
    from mlcl_cli.workflows.make_triplets import Source, make_triplets

    source = Source(products, [name.strip() for name in attributes.split(",") if name.strip()], image, within)
    rules = Rules(
        changes=changes, per_product=per_product, max_targets=max_targets, val_fraction=val_fraction, seed=seed
    )
    result = make_triplets(source, output, context.progress, rules=rules, templates=templates)
    context.show(result.as_json(), lambda: show_made_triplets(result))
