"""The state of an image file: its metadata for a quick check, its bytes for certainty."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

Key = TypeVar("Key")


def file_stamps(files: Mapping[Key, Path]) -> dict[Key, str]:
    """Size, mtime and ctime (ns) and inode of each file, by the keys of `files`, without those that cannot be accessed.

    Size and mtime may survive an overwrite (`cp -p`, `rsync --times`); ctime and inode do not.
    """
    stamps = {}
    for key, path in files.items():
        with suppress(OSError):
            status = path.stat()
            stamps[key] = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"
    return stamps


def content_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, cut to 128 bits, in hex. Raises OSError if it is not a regular file."""
    if not path.is_file():  # opening a named pipe would block
        raise OSError("not a regular file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
