"""The options that commands share, and what becomes of them."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from mlcl_cli.cli.completion import complete_override, runs_or_files
from mlcl_cli.data.datasets import DATASETS, GALLERIES

if TYPE_CHECKING:  # The choices follow from the data sets: a type checker cannot see them.
    DatasetName: TypeAlias = str
    GalleryName: TypeAlias = str
else:
    DatasetName = StrEnum("DatasetName", {name: name for name in DATASETS})
    GalleryName = StrEnum("GalleryName", {name: name for name in GALLERIES})

FIRST_DATASET = next(iter(DATASETS))


class EncoderName(StrEnum):
    """What fine-tuning trains."""

    TEXT = "text"
    IMAGE = "image"
    BOTH = "both"


class CombiningFunctionName(StrEnum):
    """How a query is composed."""

    COMBINER = "combiner"
    SUM = "sum"
    IMAGE = "image"
    TEXT = "text"


class DeviceName(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


ProfileOption = Annotated[
    Path | None, typer.Option("--profile", "-p", help="The profile; else $MLCL_PROFILE, else ./mlcl.yaml.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a profile key; repeatable.",
        autocompletion=complete_override,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Print only warnings, the choice of a checkpoint, and progress every half a minute."
    ),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
EpochsOption = Annotated[int | None, typer.Option(help="Epochs; else the profile's.")]
BatchOption = Annotated[int | None, typer.Option(help="Triplets a batch; else the profile's.")]
RateOption = Annotated[float | None, typer.Option(help="Learning rate; else the profile's.")]
ResumeOption = Annotated[
    bool | None, typer.Option("--resume/--no-resume", help="Resume the newest unfinished run; else the profile's.")
]
RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="RUN|PATH",
        help="Resume this run: its name, its folder, or one of its state files.",
        autocompletion=runs_or_files("*"),
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Try one batch, estimate time, memory and disk, and write nothing.")
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        metavar="RUN|FILE",
        help="A combiner: a run's name, or a checkpoint; else the best finished run's in the workspace.",
        autocompletion=runs_or_files("combiner"),
    ),
]
CombiningOption = Annotated[CombiningFunctionName, typer.Option(help="How a query is composed.")]


def as_overrides(section: str, **values: object) -> list[str]:
    """Flags as `--set` overrides of the profile's `section`; those that were not given are left out."""
    return [f"{section}.{key}={value}" for key, value in values.items() if value is not None]


def absolute(path: Path | None) -> Path | None:
    """A path as the user meant it."""
    if path is None:
        return None
    resolved = path.expanduser().resolve()
    # /dev/stdout of a pipe resolves to a name that exists nowhere.
    return resolved if resolved.exists() or not path.exists() else path
