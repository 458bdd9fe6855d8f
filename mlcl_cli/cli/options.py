"""The options that commands share, and what becomes of them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mlcl_cli.cli.completion import runs_or_files


class DatasetName(StrEnum):
    """The data sets."""

    FASHIONIQ = "fashioniq"
    SHOES = "shoes"
    CIRR = "cirr"


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


class GalleryName(StrEnum):
    """FashionIQ's two galleries."""

    ORIGINAL = "original"
    VAL = "val"


class DeviceName(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


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


def absolute(path: Path | None) -> Path | None:
    """A path as the user meant it."""
    if path is None:
        return None
    resolved = path.expanduser().resolve()
    # /dev/stdout of a pipe resolves to a name that exists nowhere.
    return resolved if resolved.exists() or not path.exists() else path
