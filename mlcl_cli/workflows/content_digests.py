"""What the image files of a workspace hold: a digest per file, hashed once and remembered by the file's stamp."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import TypeAdapter

from mlcl_cli.atomic_files import to_json, write_file
from mlcl_cli.errors import MachineError
from mlcl_cli.images.decode import BadImage, read_files
from mlcl_cli.images.file_stamps import content_digest, file_stamps
from mlcl_cli.progress import Progress
from mlcl_cli.safe_reading import open_regular

Note = TypeVar("Note")


class Content(NamedTuple):
    """A file's digest, and its stamp when it was hashed."""

    stamp: str
    digest: str


class Contents:
    """The record `features/contents.json` of a workspace, by path. A file is hashed again if its stamp differs.

    An unreadable record counts as empty. If it cannot be written, the files are hashed again next time.
    """

    def __init__(self, workspace: Path, workers: int, progress: Progress) -> None:
        self._path = workspace / "features" / "contents.json"
        self._workers, self._progress = workers, progress
        self.recorded = self._read()
        self._new: dict[str, Content] = {}

    def _read(self) -> dict[str, Content]:
        return read_note(self._path, dict[str, Content]) or {}

    def digests(self, files: Mapping[str, Path]) -> dict[str, str]:
        """The digest of each file, by the names of `files`; without those that cannot be read."""
        stamps = file_stamps(files)
        known = {
            name: content.digest
            for name, stamp in stamps.items()
            if (content := self.recorded.get(str(files[name]))) and content.stamp == stamp
        }
        fresh = self.hash_files({name: files[name] for name in stamps if name not in known})
        for name, digest in fresh.items():
            self.record(str(files[name]), Content(stamps[name], digest))
        return known | fresh

    def hash_files(self, files: Mapping[str, Path]) -> dict[str, str]:
        """The digest of each file as it is on disk, whatever the record says; without those that cannot be read."""
        if not files:
            return {}
        hashed = {}
        digests = read_files([*files.items()], lambda path, _: content_digest(path), self._workers)
        with self._progress.bar(f"Hashing {len(files):,} images", len(files)) as advance:
            for name, digest in zip(files, digests, strict=True):
                if not isinstance(digest, BadImage):
                    hashed[name] = digest
                advance(1)
        return hashed

    def record(self, path: str, content: Content) -> None:
        """Replace what is recorded for `path`."""
        self.recorded[path] = self._new[path] = content

    def save(self) -> None:
        """Add what is new to the record on disk, if it can be written."""
        if self._new:
            with suppress(MachineError):
                write_note(self._path, self._read() | self._new)
            self._new.clear()


def read_note(path: Path, content_type: type[Note]) -> Note | None:
    """What mlcl remembers in a file of the workspace; None if it is missing, unreadable or invalid."""
    try:
        with open_regular(path) as file:
            return TypeAdapter(content_type).validate_json(file.read())
    except (OSError, ValueError):
        return None


def write_note(path: Path, content: object) -> None:
    """Replace what mlcl remembers in a file of the workspace.

    Raises MachineError if it cannot be written, and for a link, which may lead to a file of the user's.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise MachineError("is not a regular file", where=path, remedy="Delete it")
    write_file(path, to_json(content))


def combined_digest(digests: Mapping[str, str]) -> str:
    """One digest that stands for all names and their contents."""
    lines = "".join(f"{digest} {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
