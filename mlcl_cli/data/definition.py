"""What the rest of the package knows about a data set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlcl_cli.data.annotations import OnDefect
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import Split
from mlcl_cli.progress import Progress

Folders = Mapping[str, Path]


@dataclass(frozen=True)
class Published:
    """The size of a complete split; `images` are those of its gallery, 0 where that number is not published."""

    triplets: int
    images: int = 0


@dataclass(frozen=True)
class Prepared:
    """What a preparation writes: each file's content, and counts by split.

    `triplets` also counts those that were "dropped".
    """

    images: Mapping[str, int]
    triplets: Mapping[str, int]
    target_is_reference: int
    contents: Mapping[Path, bytes]


@dataclass(frozen=True)
class Preparation:
    """The command that turns a raw download into the annotations that the reader takes.

    `files` are what it writes below the root. `prepare` reads the raw download and writes nothing: it raises DataError
    if the download is incomplete or damaged.
    """

    command: str
    help: str
    files: tuple[str, ...]
    prepare: Callable[[Path, Folders, Progress], Prepared]


@dataclass(frozen=True)
class Submission:
    """The command that answers the queries of a test split for the data set's server."""

    command: str
    split: str


@dataclass(frozen=True)
class DataSet:
    """A data set: how it is read, its splits, and the protocol of each gallery that the field validates with.

    `root` is the default of the profile's `roots.NAME`. `folders` are further folders that the profile's section NAME
    can move, by default below the root. `read` takes the root, a split's name, those folders, and what to do with a
    bad record. The gallery "original" is every image of a split.
    """

    name: str
    root: str
    read: Callable[[Path, str, Folders, OnDefect], Split]
    splits: tuple[str, ...]
    protocols: Mapping[str, Protocol]
    published: Mapping[str, Published] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    preparation: Preparation | None = None
    submission: Submission | None = None

    @property
    def first_command(self) -> str:
        """What to run first on a fresh download."""
        return self.preparation.command if self.preparation else "finetune --encoder text"

    @property
    def selectable_bests(self) -> tuple[str, ...]:
        """The metrics that each keep a best checkpoint, if the data set has several."""
        several = (protocol.bests for protocol in self.protocols.values() if len(protocol.bests) > 1)
        return tuple(dict.fromkeys(best for bests in several for best in bests))
