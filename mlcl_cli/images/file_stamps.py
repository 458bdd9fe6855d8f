"""What identifies the state of an image file: its metadata for a quick check, its bytes for certainty."""

import hashlib
from collections.abc import Mapping
from pathlib import Path


def file_stamp(path: Path) -> str | None:
    """Size, mtime and ctime (ns) and inode of a file, or None if it is missing or cannot be accessed.

    Size and mtime may survive an overwrite (`cp -p`, `rsync --times`); ctime and inode do not.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"


def file_stamps(files: Mapping[str, Path]) -> dict[str, str]:
    """The stamp of each file by name, except those that cannot be accessed."""
    return {name: stamp for name, path in files.items() if (stamp := file_stamp(path)) is not None}


def content_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, cut to 128 bits, in hex. Raises OSError if it is not a regular file."""
    if not path.is_file():  # opening a named pipe would block
        raise OSError("not a regular file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
