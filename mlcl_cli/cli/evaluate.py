"""`mlcl evaluate` and `mlcl score`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlcl_cli.cli.command import CommandContext, command
from mlcl_cli.cli.completion import complete_protocols, runs_or_files
from mlcl_cli.cli.options import CheckpointOption, CombiningOption, GalleryName, IntervalsOption, absolute
from mlcl_cli.errors import UsageError

if TYPE_CHECKING:
    from mlcl_cli.config import Profile

ALL = "all"
DescribeOption = Annotated[
    bool, typer.Option("--describe", help="Print the protocol in words that a paper can cite, and stop.")
]
ProtocolOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The protocol. Default: the profile's.", autocompletion=complete_protocols),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FILE",
        help="A run's name, a checkpoint, or predictions (.json, .jsonl, .npz).",
        autocompletion=runs_or_files("*"),
    ),
]


def register(app: typer.Typer) -> None:
    """Add both commands to `app`."""
    gallery = Annotated[
        GalleryName | None,
        typer.Option(help="The gallery, if the data set has several. Default: the profile's value."),
    ]
    example = "mlcl evaluate --combining-function sum --gallery val"
    command(app, "evaluate", example, settings={"evaluate.gallery": gallery})(evaluate)
    command(app, "score", "mlcl score predictions.json --protocol cirr-val")(score)
    command(app, "compare", "mlcl compare combiner/cirr-20261123-120000 theirs.json")(compare)


def evaluate(
    context: CommandContext,
    checkpoint: CheckpointOption = None,
    combining_function: CombiningOption = "combiner",
    ranks: Annotated[
        Path | None,
        typer.Option(
            help="Write every target's rank to this .csv file. Cells are written unchanged: a spreadsheet may run one "
            "that begins with =, +, - or @ as a formula."
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Write every query's ranking to this .json or .jsonl file, or all features to this .npz file, for "
            "`mlcl score`."
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|all",
            help="The protocol, or all of the data set's side by side. Default: the profile's.",
            autocompletion=complete_protocols,
        ),
    ] = None,
    intervals: IntervalsOption = False,
    describe: DescribeOption = False,
) -> None:
    """Evaluate a validation protocol of the data set."""
    profile = context.profile
    from mlcl_cli.runs.description import Kind
    from mlcl_cli.workflows.evaluate import run_evaluation, under_protocol
    from mlcl_cli.workflows.run_names import checkpoint_named

    if every := protocol == ALL:
        given = {"--ranks": ranks, "--predictions": predictions, "--intervals": intervals}
        if option := next((option for option, value in given.items() if value), None):
            raise UsageError(f"needs one protocol, not {ALL}", where=option, remedy="Name one with --protocol")
    else:
        profile = under_protocol(profile, protocol)
    if describe:
        _describe(context, profile, every=every)
        return
    combiner = None if checkpoint is None else checkpoint_named(profile, checkpoint, Kind.COMBINER)
    if every:
        _compare(context, profile, combining_function, combiner)
        return
    result = run_evaluation(
        profile,
        context.progress,
        combining_function=combining_function,
        checkpoint=combiner,
        ranks=absolute(ranks),
        predicted=absolute(predictions),
        with_intervals=intervals,
    )
    context.show(result.as_json())


def _describe(context: CommandContext, profile: "Profile", *, every: bool) -> None:
    from mlcl_cli.cli.render import show_descriptions
    from mlcl_cli.workflows.evaluate import described

    words = described(profile, profile.definition.protocols if every else [profile.protocol])
    context.show(words, lambda: show_descriptions(words))


def _compare(context: CommandContext, profile: "Profile", combining_function: str, combiner: Path | None) -> None:
    from mlcl_cli.cli.render import show_comparison
    from mlcl_cli.workflows.evaluate import compare_protocols

    compared = compare_protocols(
        profile, context.progress, combining_function=combining_function, checkpoint=combiner
    ).as_json()
    context.show(compared, lambda: show_comparison(compared))


def score(
    context: CommandContext,
    predictions: Annotated[
        Path, typer.Argument(metavar="FILE", help="Ranked lists (.json, .jsonl) or features (.npz).")
    ],
    protocol: ProtocolOption = None,
    intervals: IntervalsOption = False,
) -> None:
    """Score the predictions of any model with a validation protocol.

    A file of ranked lists is {"QUERY ID": ["IMAGE", ...], ...}, best first.
    Only the annotations are needed, no images and no GPU.
    """
    profile = context.profile
    from mlcl_cli.workflows.score import score as run

    path = predictions.expanduser()
    context.show(run(profile, context.progress, path, protocol, with_intervals=intervals).as_json())


def compare(
    context: CommandContext,
    first: ModelArgument,
    second: ModelArgument,
    protocol: ProtocolOption = None,
) -> None:
    """Compare two models on the same queries, with a paired bootstrap.

    Each is a run, a checkpoint, or a file of predictions. Shows the difference
    (second minus first) of each metric, its 95% interval, and p-values, also
    after Holm's correction over the metrics.
    """
    profile = context.profile
    from mlcl_cli.cli.render import show_differences
    from mlcl_cli.workflows.compare import compare_models
    from mlcl_cli.workflows.evaluate import under_protocol

    result = compare_models(under_protocol(profile, protocol), context.progress, first, second)
    context.show(result.as_json(), lambda: show_differences(result))
