"""What the image files of a workspace hold: a digest per file, hashed once and remembered by the file's stamp."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from pydantic import TypeAdapter

from mlcl_cli.atomic_files import to_json, write_file
from mlcl_cli.errors import MachineError
from mlcl_cli.images.decode import BadImage
from mlcl_cli.images.file_stamps import content_digests, file_stamps
from mlcl_cli.progress import Progress
from mlcl_cli.safe_reading import open_regular


class Content(NamedTuple):
    """A file's digest, and its stamp when it was hashed."""

    stamp: str
    digest: str


Record = dict[str, Content]
Note = TypeVar("Note")


@dataclass
class Contents:
    """The record `features/contents.json`, by path. A file is hashed again only where its stamp differs.

    An unreadable record counts as empty, and one that cannot be written stays as it is: the files are hashed again
    next time.
    """

    path: Path
    workers: int
    progress: Progress
    recorded: dict[str, Content] = field(default_factory=dict)
    _new: dict[str, Content] = field(default_factory=dict)

    @classmethod
    def open(cls, workspace: Path, workers: int, progress: Progress) -> Self:
        """The record of `workspace`."""
        path = workspace / "features" / "contents.json"
        return cls(path, workers, progress, read_note(path, Record) or {})

    def digests(self, files: Mapping[str, Path]) -> dict[str, str]:
        """The digest of each file, by the names of `files`; without those that cannot be read."""
        stamps = file_stamps(files)
        recorded = {name: self.recorded.get(str(files[name]), Content("", "")) for name in stamps}
        known = {name: content.digest for name, content in recorded.items() if content.stamp == stamps[name]}
        fresh = self.hashed([(name, files[name]) for name in stamps if name not in known])
        for name, digest in fresh.items():
            self.record(str(files[name]), Content(stamps[name], digest))
        return known | fresh

    def hashed(self, files: Sequence[tuple[str, Path]]) -> dict[str, str]:
        """The digest of each file as it is on disk, whatever the record says; without those that cannot be read."""
        if not files:
            return {}
        hashed = {}
        with self.progress.bar(f"Hashing {len(files):,} images", len(files)) as advance:
            for (name, _), digest in zip(files, content_digests(files, self.workers), strict=True):
                if not isinstance(digest, BadImage):
                    hashed[name] = digest
                advance(1)
        return hashed

    def record(self, path: str, content: Content) -> None:
        """Replaces what is recorded for `path`."""
        self.recorded[path] = self._new[path] = content

    def save(self) -> None:
        """Adds what is new to the record on disk, where it can be written."""
        if self._new:
            write_note(self.path, (read_note(self.path, Record) or {}) | self._new)
            self._new.clear()


def read_note(path: Path, kind: type[Note]) -> Note | None:
    """What mlcl remembers in a file of the workspace; None if it is missing, unreadable or something else."""
    try:
        with open_regular(path) as file:
            return TypeAdapter(kind).validate_json(file.read())
    except (OSError, ValueError):
        return None


def write_note(path: Path, content: object) -> MachineError | None:
    """Replaces what mlcl remembers in the workspace; returns the error if it cannot be written.

    Anything but a regular file stays as it is: a link may lead to a file of the user's.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        return MachineError("is not a regular file", where=path, remedy="Delete it")
    try:
        write_file(path, to_json(content))
    except MachineError as error:  # a read-only workspace
        return error
    return None


def combined(digests: Mapping[str, str]) -> str:
    """One digest that stands for all names and their contents."""
    lines = "".join(f"{digest} {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
