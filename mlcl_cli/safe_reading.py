"""Reading of files that may be anything: regular files only, and JSON of any depth."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

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


def parse_json(text: str | bytes, **options: Any) -> Any:
    """`json.loads` that raises ValueError, not RecursionError, for a value that is nested too deeply."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("nested too deeply") from None
