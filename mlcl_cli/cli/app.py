"""The command line: each command parses, calls one workflow, and shows its result. Nothing here imports torch."""

import contextlib
import functools
import io
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from json import loads
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from mlcl_cli import __version__
from mlcl_cli.cli import runs, train
from mlcl_cli.cli.command_classes import Command, Group
from mlcl_cli.cli.completion import bash_words, runs_or_files
from mlcl_cli.cli.error_boundary import error_boundary, open_profile, print_bug
from mlcl_cli.cli.options import (
    FIRST_DATASET,
    CheckpointOption,
    CombiningFunctionName,
    CombiningOption,
    DatasetName,
    DebugOption,
    DeviceName,
    GalleryName,
    JsonOption,
    ProfileOption,
    QuietOption,
    SetOption,
    absolute,
    as_overrides,
)
from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.definition import Preparation
from mlcl_cli.errors import DataError, UsageError
from mlcl_cli.formatting import duration

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., None])

app = typer.Typer(
    name="mlcl",
    cls=Group,
    help="Composed image retrieval by multi-level contrastive learning on CLIP: a reference image and a text modifier "
    "find the target image.",
    epilog="Start with `mlcl demo`, or `mlcl init --dataset fashioniq` and fill in mlcl.yaml.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(runs.app, name="runs")


def command(name: str, example: str) -> Callable[[Function], Function]:
    """Registers a command whose errors become one line and an exit code."""

    def _register(function: Function) -> Function:
        return app.command(name, cls=Command, epilog=f"Example:  {example}")(error_boundary(function))  # type: ignore[return-value]

    return _register


def main() -> None:
    """Exit codes: 0 done, 1 our bug, 2 usage or profile, 3 data, 4 machine, 5 diverged, 75 stopped."""
    if "--debug" not in sys.argv:
        sys.excepthook = print_bug
    with bash_words():
        typer.main.get_command(app)(prog_name="mlcl")  # app() would put a hook of its own in place of ours


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"mlcl {__version__}")
        raise typer.Exit


@command("init", "mlcl init --dataset shoes")
def init(
    dataset: Annotated[DatasetName, typer.Option(help="The data set to write a profile for.")] = FIRST_DATASET,
    output: Annotated[Path, typer.Option(help="Where to write it.")] = Path("mlcl.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Write a commented mlcl.yaml to fill in."""
    from mlcl_cli.atomic_files import write_file
    from mlcl_cli.config import template

    if output.exists() and not force:
        raise UsageError("exists already", where=output, remedy="Use --force to overwrite it, or --output")
    write_file(output, template(dataset).encode())
    from mlcl_cli.cli.render import say

    say(f"Wrote {output}. Fill in roots.{dataset}, then run `mlcl {DATASETS[dataset].first_command}`.")


def _add_preparation(dataset: str, preparation: Preparation) -> None:
    """Registers the command that prepares a data set's raw download, whichever data set a profile is for."""

    def _prepare(
        profile: ProfileOption = None,
        overrides: SetOption = None,
        quiet: QuietOption = False,
        json: JsonOption = False,
        debug: DebugOption = False,  # noqa: ARG001
    ) -> None:
        loaded, terminal = open_profile(profile, overrides, quiet=quiet)
        from mlcl_cli.cli.render import show
        from mlcl_cli.workflows.prepare import prepare

        show(prepare(loaded, dataset, preparation, terminal), json=json)

    _prepare.__doc__ = preparation.help
    command(preparation.command, f"mlcl {preparation.command} --json")(_prepare)


for _definition in DATASETS.values():
    if _definition.preparation:
        _add_preparation(_definition.name, _definition.preparation)


@command("check", "mlcl check --output offenders.csv")
def check(
    split: Annotated[list[str] | None, typer.Option(metavar="SPLIT", help="Only this split; repeatable.")] = None,
    content: Annotated[
        bool, typer.Option("--content", help="Hash every image and compare it with what was recorded.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Write what was found, as .json or .csv.")] = None,
    profile: ProfileOption = None,
    overrides: SetOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Check everything that a run needs, and say which commands would fail.

    Exits 3 if there is an error. A training or test split that is missing
    entirely is a note, unless --split names it.
    """
    loaded, terminal = open_profile(profile, overrides, quiet=quiet)
    from mlcl_cli.cli.render import show_check, show_json
    from mlcl_cli.workflows.check import check as run
    from mlcl_cli.workflows.findings import require_writable, write_findings

    if output is not None:
        require_writable(output)
    result = run(loaded, terminal, splits=split or (), content=content)
    if output is not None:
        write_findings(result, output)
    (show_json if json else show_check)(result.as_json())
    if not result.sound:
        raise typer.Exit(DataError.exit_code)


command("finetune", "mlcl finetune --encoder text")(train.finetune)
command("train-combiner", "mlcl train-combiner --epochs 300")(train.train_combiner)


@command("evaluate", "mlcl evaluate --combining-function sum --gallery val")
def evaluate(
    checkpoint: CheckpointOption = None,
    combining_function: CombiningOption = CombiningFunctionName.COMBINER,
    gallery: Annotated[
        GalleryName | None, typer.Option(help="The gallery, if the data set has several; else the profile's.")
    ] = None,
    ranks: Annotated[
        Path | None,
        typer.Option(
            help="Write every target's rank to this .csv. Cells are written as they are: a spreadsheet may run one "
            "that begins with =, +, - or @ as a formula."
        ),
    ] = None,
    profile: ProfileOption = None,
    overrides: SetOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Evaluate the data set's validation protocol."""
    flags = as_overrides("evaluate", gallery=gallery)
    loaded, terminal = open_profile(profile, [*(overrides or []), *flags], quiet=quiet)
    from mlcl_cli.cli.render import show
    from mlcl_cli.workflows.evaluate import run_evaluation
    from mlcl_cli.workflows.run_names import checkpoint_named

    named = None if checkpoint is None else checkpoint_named(loaded, checkpoint, "combiner")
    how = {"checkpoint": named, "ranks": absolute(ranks)}
    result = run_evaluation(loaded, terminal, combining_function=combining_function, **how)
    show(result.as_json(), json=json)


@command("submit-cirr", "mlcl submit-cirr --name first-try")
def submit_cirr(
    name: Annotated[str | None, typer.Option(help="The submission's name; else the run's.")] = None,
    checkpoint: CheckpointOption = None,
    combining_function: CombiningOption = CombiningFunctionName.COMBINER,
    profile: ProfileOption = None,
    overrides: SetOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Write the two JSON files that CIRR's test server takes."""
    loaded, terminal = open_profile(profile, overrides, quiet=quiet)
    from mlcl_cli.cli.render import show
    from mlcl_cli.workflows.evaluate import submit_cirr as run
    from mlcl_cli.workflows.run_names import checkpoint_named

    function = combining_function.value
    named = None if checkpoint is None else checkpoint_named(loaded, checkpoint, "combiner")
    result = run(loaded, terminal, name=name, combining_function=function, checkpoint=named)
    show(result.as_json(), json=json)


command("report", "mlcl report --all --output report.html")(runs.report)


@command("export", "mlcl export cirr-20260131-120000 combiner.pt")
def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FILE",
            help="A run's name, which is its best checkpoint, or a checkpoint that mlcl wrote.",
            autocompletion=runs_or_files("*"),
        ),
    ],
    output: Annotated[Path, typer.Argument(help="The .pt file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    profile: ProfileOption = None,
    overrides: SetOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Write a checkpoint in the original code's .pt format."""
    from mlcl_cli.cli.render import show
    from mlcl_cli.workflows.export import export_checkpoint

    source = Path(checkpoint)
    if not source.is_file() and not source.suffix:  # only a run's name needs the workspace
        from mlcl_cli.workflows.run_names import checkpoint_named

        source = checkpoint_named(open_profile(profile, overrides)[0], checkpoint)
    show(export_checkpoint(source, output, force=force), json=json)


@command("demo", "mlcl demo --dataset cirr")
def demo(
    output: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("mlcl-demo"),
    dataset: Annotated[
        list[DatasetName] | None, typer.Option(metavar="|".join(DATASETS), help="Only this data set; repeatable.")
    ] = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Draw a small catalog and run the whole pipeline on it, for real, within minutes.

    An earlier demo in the folder is moved aside.
    """
    from mlcl_cli.cli.render import say, show_comparison, show_json
    from mlcl_cli.cli.terminal_progress import Terminal
    from mlcl_cli.workflows.demo import run_demo

    terminal = Terminal(quiet=quiet)
    datasets = [str(name) for name in dataset or ()]
    run = functools.partial(_run_command, quiet=quiet)
    result = run_demo(output.resolve(), datasets, terminal, run)
    if json:
        show_json(result.as_json())
    else:
        show_comparison("Recall in percent, mean of the protocol's recalls", result.scores)
        say(f"Everything was written to {result.folder} in {duration(result.seconds)}")
        say(f"Open this in a browser to see what was found: {result.report}")
        say(f"Try the other commands on it: mlcl runs --profile {shlex.quote(str(result.profile))}")


@command("bench", "mlcl bench --only combiner-epochs --only validations")
def bench(
    only: Annotated[
        list[str] | None, typer.Option(metavar="GROUP", help="Measure only this group of rows; repeatable.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Counted runs of each side.")] = 3,
    device: Annotated[DeviceName, typer.Option(help="Where to measure.")] = DeviceName.AUTO,
    smallest: Annotated[bool, typer.Option("--smallest", help="A trial in seconds; its figures mean nothing.")] = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Measure speed and memory beside the plain way, both in one run on this machine."""
    from mlcl_cli.cli.render import show_bench, show_json
    from mlcl_cli.cli.terminal_progress import Terminal
    from mlcl_cli.workflows.bench import run_bench

    result = run_bench(Terminal(quiet=quiet), device=device.value, only=only or (), repeats=repeats, smallest=smallest)
    (show_json if json else show_bench)(result.as_json())


def _run_command(arguments: Sequence[str], *, quiet: bool) -> dict[str, Any]:
    """Runs an mlcl command line in this process and returns its JSON result; ends the demo where it fails."""
    logger.info(f"$ mlcl {' '.join(arguments)}")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = app([*arguments, "--json", *(["--quiet"] if quiet else [])], standalone_mode=False)
    if code:
        raise typer.Exit(code)
    result: dict[str, Any] = loads(out.getvalue())
    return result
