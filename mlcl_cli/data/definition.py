"""What the rest of the package knows about a data set."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from mlcl_cli.data.annotations import OnDefect, refuse
from mlcl_cli.data.protocols import AS_ANNOTATED, Protocol
from mlcl_cli.data.records import Split
from mlcl_cli.errors import UsageError
from mlcl_cli.progress import Progress

TRAIN = "train"
ORIGINAL = "original"  # the gallery of a whole split
AUTO = "auto"
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
class AnswerFile:
    """One of the files that a server takes: the `length` best images of every query, best first.

    `name` is the start of the file's name, `title` what messages call it. `head` are the fields before the answers.
    `among_members` ranks only the images of the query's image set.
    """

    name: str
    title: str
    length: int
    head: Mapping[str, str] = field(default_factory=dict)
    among_members: bool = False


@dataclass(frozen=True)
class Submission:
    """The command that answers the queries of a test split for the data set's server, and what the server takes.

    An answer's key is the query's `pair_id`, which messages call `query`. `integers` says that images are given as
    integers, not strings, `gapless` that the keys must be all numbers from 0 up. A file may have `max_bytes`, if set.
    """

    command: str
    help: str
    split: str
    files: tuple[AnswerFile, ...]
    query: str = "query"
    integers: bool = False
    gapless: bool = False
    max_bytes: int | None = None


@dataclass(frozen=True)
class DataSet:
    """A data set: how it is read, its splits, and the protocols that the field validates with, the usual one first.

    `root` is the default of the profile's `roots.NAME`. `folders` are further folders that the profile's section NAME
    can move, by default below the root. `read` takes the root, a split's name, those folders, and what to do with a
    bad record.
    """

    name: str
    root: str
    read: Callable[[Path, str, Folders, OnDefect], Split]
    splits: tuple[str, ...]
    protocols: tuple[Protocol, ...]
    published: Mapping[str, Published] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    preparation: Preparation | None = None
    submission: Submission | None = None
    images_remedy: str = "Download them"  # where none of a split's images exists

    @property
    def first_command(self) -> str:
        """What to run first on a fresh download."""
        if self.preparation:
            return self.preparation.command
        return "finetune --encoder text" if TRAIN in self.splits else "check"

    @property
    def selectable_bests(self) -> tuple[str, ...]:
        """The metrics that each keep a best checkpoint, if the data set has several."""
        several = (protocol.bests for protocol in self.protocols if len(protocol.bests) > 1)
        return tuple(dict.fromkeys(best for bests in several for best in bests))

    @property
    def galleries(self) -> tuple[str, ...]:
        """The profile's words for the galleries of the protocols."""
        return tuple(dict.fromkeys(protocol.gallery for protocol in self.protocols))

    @property
    def caption_rules(self) -> tuple[str, ...]:
        """The profile's words for the caption rules of the protocols."""
        return tuple(dict.fromkeys(protocol.captions.name for protocol in self.protocols))

    def protocol(
        self, gallery: str = ORIGINAL, captions: str = AUTO, *, exclude_reference: bool | None = None
    ) -> Protocol:
        """The protocol that a profile chooses; a choice counts only where the protocols differ in it.

        `exclude_reference` is None for the protocol's own way. Raises UsageError for a gallery or a caption rule that
        none of several protocols has.
        """
        protocols = self.protocols
        if len(self.galleries) > 1:
            require_known(gallery, self.galleries, f"{self.name} has no gallery")
            protocols = tuple(protocol for protocol in protocols if protocol.gallery == gallery)
        if len(self.caption_rules) > 1 and captions != AUTO:
            require_known(captions, self.caption_rules, f"{self.name} has no caption rule")
            protocols = tuple(protocol for protocol in protocols if protocol.captions.name == captions)
        if exclude_reference is None:
            return protocols[0]
        wanted = protocols[0].with_reference(excluded=exclude_reference)
        return next((protocol for protocol in protocols if protocol.name == wanted.name), wanted)

    def require_split(self, split: str) -> None:
        """Raise UsageError if the data set has no such split."""
        if split == TRAIN and TRAIN not in self.splits:
            remedy = "Train on another data set, and evaluate here with --checkpoint and --set clip.checkpoint=FILE"
            raise UsageError(f"{self.name} has no training split", where="dataset", remedy=remedy)
        require_known(split, self.splits, f"{self.name} has no split")

    def load(
        self,
        root: Path,
        split: str,
        protocol: Protocol | None = None,
        *,
        folders: Folders = MappingProxyType({}),
        on_defect: OnDefect = refuse,
    ) -> Split:
        """One split, with the gallery and the query texts of `protocol`, by default the first.

        `folders` are those of `self.folders` that are not where the download has them. Raises UsageError for an unknown
        split, DataError for everything that is wrong on disk. The error of a single record goes to `on_defect`; if that
        returns, the record is left out.
        """
        protocol = protocol or self.protocols[0]
        self.require_split(split)
        loaded = self.read(root, split, folders, on_defect)
        if protocol.captions is not AS_ANNOTATED:
            loaded = loaded.with_texts(protocol.captions.texts)
        return loaded.with_used_galleries() if protocol.used_images_only else loaded


def require_known(name: str, known: Iterable[str], problem: str) -> None:
    """Raise UsageError if `name` is not among the `known` names."""
    if name not in known:
        raise UsageError(f"{problem} {name!r}", remedy=f"Choose one of {', '.join(known)}")
