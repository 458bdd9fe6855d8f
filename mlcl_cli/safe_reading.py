"""Reading of files that may be anything: regular files only, and JSON of any depth."""

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import BinaryIO

NOT_REGULAR = "not a regular file"


def open_regular(path: Path) -> BinaryIO:
    """`path`, opened for reading bytes, without waiting forever for someone to write to it, as a FIFO would.

    Raises OSError as `open` does (IsADirectoryError for a folder), and if `path` is a FIFO, a socket or a device.
    """
    flags = os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK)
    except BlockingIOError:  # a file server leases it: a regular file, which opens once the lease is released
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device without a driver
            raise OSError(error.errno, NOT_REGULAR, str(path)) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, NOT_REGULAR, str(path))


def parse_json(text: str) -> object:
    """A JSON value. Raises ValueError also for NaN, infinity, a key twice in one object, and deep nesting."""
    try:
        value: object = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"contains {text[:40]}, which is not a finite number")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for key, value in pairs:
        if key in fields:
            raise ValueError(f"contains {key!r} twice in one object")
        fields[key] = value
    return fields
