"""The lock of a run's folder, which the process that trains the run holds."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

from filelock import FileLock, Timeout

from mlcl_cli.atomic_files import exclusive_lock
from mlcl_cli.errors import MachineError

LOCK = ".lock"


def hold_lock(folder: Path) -> AbstractContextManager[None]:
    """Hold the run's lock, so that no other process trains the run. Raises MachineError where another one holds it."""

    def refuse() -> NoReturn:
        raise MachineError("another process is training this run", where=folder, remedy="Wait for it, or stop it")

    return exclusive_lock(folder / LOCK, refuse)


def is_locked(folder: Path) -> bool:
    """Whether a process holds the run's lock; true as well where the file system cannot tell."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError, NotImplementedError):
        return True
    lock.release()
    return False
