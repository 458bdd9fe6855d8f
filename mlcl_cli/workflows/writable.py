"""Whether a workspace can be written, found out before any work is done."""

import errno
import os
import secrets
from pathlib import Path

from mlcl_cli.atomic_files import nearest_existing_parent, write_file
from mlcl_cli.errors import MachineError


def require_writable(workspace: Path) -> None:
    """Raise MachineError if `workspace` cannot be written. Does not create it: what follows may fail."""
    probe = _probe(workspace)
    try:
        write_file(probe, b"")
    except MachineError as error:
        raise MachineError(error.what, where=workspace, remedy="Choose another workspace in the profile") from error
    probe.unlink()


def read_only_reason(folder: Path) -> str | None:
    """Why `folder` is read-only for this process: the disk, or files of another user; None if it is writable.

    Other errors, such as a full disk, do not count.
    """
    probe = _probe(folder)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        return error.strerror if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else None
    locked = any(not os.access(lock, os.W_OK) for lock in folder.glob("*.lock"))
    return os.strerror(errno.EACCES) if locked else None


def _probe(folder: Path) -> Path:
    return nearest_existing_parent(folder) / f".mlcl-{secrets.token_hex(4)}"
