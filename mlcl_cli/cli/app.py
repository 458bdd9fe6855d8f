"""The command line. Each command parses, calls one workflow and shows its result. Nothing here imports torch."""

import contextlib
import io
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from mlcl_cli import __version__
from mlcl_cli.cli import dataset_commands, evaluate, indexing, runs, search, serve, sweep, train, triplets
from mlcl_cli.cli.command import WITHOUT_PROFILE, CommandContext, command
from mlcl_cli.cli.command_classes import Group
from mlcl_cli.cli.completion import bash_words, runs_or_files
from mlcl_cli.cli.error_boundary import print_bug
from mlcl_cli.cli.options import FIRST_DATASET, DatasetName, DrawnDataset
from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.demo import ROOTS as DRAWN
from mlcl_cli.errors import DataError, UsageError

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="mlcl",
    cls=Group,
    help="Composed image retrieval by multi-level contrastive learning on CLIP: a reference image and a text modifier "
    "find the target image.",
    epilog="Start with `mlcl demo`; or with `mlcl init --dataset fashioniq`, and edit mlcl.yaml; or search products of "
    "your own with `mlcl init`, `mlcl index products.csv` and `mlcl search`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(runs.app, name="runs")


def main() -> None:
    """Exit codes: 0 done, 1 a bug in mlcl, 2 usage or profile, 3 data, 4 machine, 5 diverged, 75 signal."""
    if "--debug" not in sys.argv:
        sys.excepthook = print_bug
    with bash_words():
        typer.main.get_command(app)(prog_name="mlcl")  # app() would install an excepthook of its own


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"mlcl {__version__}")
        raise typer.Exit


@command(app, "init", "mlcl init --from triplets.csv", shared=("debug",))
def init(
    context: CommandContext,  # noqa: ARG001
    dataset: Annotated[
        DatasetName | None, typer.Option(help=f"The data set to write a profile for. Default: {FIRST_DATASET}.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="TABLE",
            help="Write a profile for data of your own: a table with a triplet in each row, in a .csv, .tsv, .jsonl or "
            ".parquet file. Its columns and the folder of its images are guessed.",
        ),
    ] = None,
    output: Annotated[str, typer.Option(metavar="PATH", help="The file to write.")] = "mlcl.yaml",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented mlcl.yaml to edit."""
    from mlcl_cli.atomic_files import write_file
    from mlcl_cli.cli.render import say
    from mlcl_cli.config import own_profile, template

    if source is not None and dataset is not None:
        raise UsageError("--from and --dataset exclude each other", remedy="Give one of them")
    path = Path(output)
    if output.endswith("/") or path.is_dir():
        raise UsageError("is a folder", where=output, remedy=f"Name a file in it: {path / 'mlcl.yaml'}")
    if path.exists() and not force:
        raise UsageError("already exists", where=output, remedy="Use --force to overwrite it, or --output")
    if source is None:
        name = dataset or FIRST_DATASET
        write_file(path, template(name).encode())
        steps = " and ".join(f"`mlcl {step}`" for step in dict.fromkeys(("check", DATASETS[name].first_command)))
        say(f"Wrote {output}. To train, set roots.{name} in it, then run {steps}.")
        say("To search products of your own, set nothing: run `mlcl index` on a table or a folder of them.")
        return
    own = own_profile(source, path.parent)
    write_file(path, own.text.encode())
    say(f"{source}: {own.found}")
    todo = [f"Set {key} in it." for key in own.unknown] + [f"Look at {key} in it." for key in own.doubtful]
    profile = "" if path == Path("mlcl.yaml") else f" --profile {output}"
    say(" ".join([f"Wrote {output}.", *todo, f"Next, run `mlcl check{profile}`."]))


dataset_commands.register_preparations(app)


@command(app, "check", "mlcl check --output findings.csv")
def check(
    context: CommandContext,
    split: Annotated[
        list[str] | None, typer.Option(metavar="SPLIT", help="Check only this split. Can be repeated.")
    ] = None,
    content: Annotated[
        bool, typer.Option("--content", help="Hash every image and compare the hash with the recorded one.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Write the findings to this .json or .csv file.")] = None,
) -> None:
    """Check everything that a run needs, and say which commands would fail.

    Exits with code 3 if there is an error. A training or test split that is missing
    entirely is a note, unless --split names it.
    """
    profile = context.profile
    from mlcl_cli.cli.render import show_check
    from mlcl_cli.workflows.check import check as run
    from mlcl_cli.workflows.findings import require_writable

    if output is not None:
        require_writable(output)
    result = run(profile, context.progress, splits=split or (), content=content)
    if output is not None:
        result.write(output)
        logger.info(f"Findings: {output}")
    context.show(result.as_json(), lambda: show_check(result))
    if not result.is_sound:
        raise typer.Exit(DataError.exit_code)


train.register(app)
sweep.register(app)
evaluate.register(app)
dataset_commands.register_submissions(app)
triplets.register(app)
indexing.register(app)
search.register(app)
serve.register(app)
command(app, "report", "mlcl report --all --output report.html")(runs.report)


@command(
    app, "export", "mlcl export cirr-20260131-120000 combiner.pt", shared=("profile_path", "overrides", "json", "debug")
)
def export(
    context: CommandContext,
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FILE",
            help="A run's name, for its best checkpoint, or a checkpoint file written by mlcl.",
            autocompletion=runs_or_files("*"),
        ),
    ],
    output: Annotated[Path, typer.Argument(help="The .pt file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a checkpoint in the original code's .pt format."""
    from mlcl_cli.workflows.export import export_checkpoint

    source = Path(checkpoint)
    if not source.is_file() and not source.suffix:  # only a run's name needs the workspace
        from mlcl_cli.workflows.run_names import checkpoint_named

        source = checkpoint_named(context.profile, checkpoint)
    context.show(export_checkpoint(source, output, force=force))


@command(app, "demo", "mlcl demo --dataset cirr", shared=WITHOUT_PROFILE)
def demo(
    context: CommandContext,
    output: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("mlcl-demo"),
    dataset: Annotated[
        list[DrawnDataset] | None,
        typer.Option(metavar="|".join(DRAWN), help="Run only this data set. Can be repeated."),
    ] = None,
) -> None:
    """Generate a small catalog and run the whole pipeline on it in a few minutes.

    An earlier demo in the folder is moved aside.
    """
    from mlcl_cli.cli.render import show_demo
    from mlcl_cli.workflows.demo import run_demo

    def run(arguments: Sequence[str]) -> dict[str, object]:
        logger.info(f"$ mlcl {' '.join(arguments)}")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = app([*arguments, "--json", *(["--quiet"] if context.quiet else [])], standalone_mode=False)
        if code:  # the command has printed its error
            raise typer.Exit(code)
        result: dict[str, object] = json.loads(out.getvalue())
        return result

    result = run_demo(output.resolve(), [str(name) for name in dataset or ()], context.progress, run)
    context.show(result.as_json(), lambda: show_demo(result))


@command(app, "bench", "mlcl bench --only combiner-epochs --only validations", shared=WITHOUT_PROFILE)
def bench(
    context: CommandContext,
    only: Annotated[
        list[str] | None, typer.Option(metavar="GROUP", help="Measure only this group of rows. Can be repeated.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="How often each side is timed.")] = 3,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="The device to measure on.")] = "auto",
    smallest: Annotated[bool, typer.Option("--smallest", help="Run a quick trial; its results mean nothing.")] = False,
) -> None:
    """Measure speed and memory on this machine against a baseline."""
    from mlcl_cli.cli.render import show_bench
    from mlcl_cli.workflows.bench import run_bench

    result = run_bench(context.progress, device=device, only=only or (), repeats=repeats, smallest=smallest)
    context.show(result.as_json(), lambda: show_bench(result))
