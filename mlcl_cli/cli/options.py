"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from mlcl_cli.cli.completion import runs_or_files
from mlcl_cli.data.datasets import DATASETS, GALLERIES
from mlcl_cli.demo import ROOTS as DRAWN

if TYPE_CHECKING:  # The choices follow from the data sets: a type checker cannot see them.
    DatasetName: TypeAlias = str
    DrawnDataset: TypeAlias = str
    GalleryName: TypeAlias = str
else:
    DatasetName = StrEnum("DatasetName", {name: name for name in DATASETS})  # typer takes no list of literals
    DrawnDataset = StrEnum("DrawnDataset", {name: name for name in DRAWN})
    GalleryName = Literal[GALLERIES]

FIRST_DATASET = next(iter(DATASETS))
NameOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The name of the run's folder. Default: the data set and the time."),
]
NoteOption = Annotated[str | None, typer.Option(metavar="TEXT", help="A note that `mlcl runs show` prints.")]
ResumeOption = Annotated[
    bool | None,
    typer.Option("--resume/--no-resume", help="Resume the newest unfinished run. Default: the profile's value."),
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
    bool,
    typer.Option("--dry-run", help="Try a few steps on one batch, estimate time, memory and disk, and write nothing."),
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        metavar="RUN|FILE",
        help="The combiner: a run's name or a checkpoint file. Default: the best finished run.",
        autocompletion=runs_or_files("combiner"),
    ),
]
Combining: TypeAlias = Literal["combiner", "sum", "weighted", "product", "image", "text"]
CombiningOption = Annotated[
    Combining,
    typer.Option(help="How to combine a query's image and text. All but combiner need no training."),
]

IntervalsOption = Annotated[
    bool, typer.Option("--intervals", help="Show the 95% interval of each metric, by a bootstrap over queries.")
]


def absolute(path: Path | None) -> Path | None:
    """`path` with its `~` expanded and its links resolved."""
    if path is None:
        return None
    resolved = path.expanduser().resolve()
    # For a pipe, /dev/stdout resolves to a name that does not exist.
    return resolved if resolved.exists() or not path.exists() else path
