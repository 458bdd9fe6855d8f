"""Files that appear whole or not at all."""

import errno
import json
import logging
import os
import secrets
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcl_cli.errors import MachineError, UsageError
from mlcl_cli.streams import printable_json

if TYPE_CHECKING:
    from filelock import FileLock

logger = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_UNLOCKED: set[Path] = set()
os.umask(_UMASK := os.umask(0o077))  # it can be read in no other way


def write_files(contents: Mapping[Path, bytes | Callable[[Path], None]]) -> None:
    """Writes all files or none: each is staged beside its place, synced, and only then are all renamed.

    A value is the bytes, or a function that writes to the path it is given. Folders are made. A symbolic link stays,
    and its target is written. Bytes for a path that is this process's standard output, such as /dev/stdout, are
    written there. Raises UsageError, before anything is staged, where a target is a device, pipe, socket or folder, and
    MachineError where the disk is full or the folder cannot be written; nothing staged is left then.
    """
    streamed = {path: content for path, content in contents.items() if isinstance(content, bytes) and _is_stdout(path)}
    targets = {_target(path): content for path, content in contents.items() if path not in streamed}
    staged: dict[Path, Path] = {}
    try:
        for path, content in targets.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            staged[path] = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
            if callable(content):
                content(staged[path])
            else:
                staged[path].write_bytes(content)
            staged[path].chmod(0o666 & ~_UMASK)  # safetensors would keep its files to their owner
            _sync(staged[path])
        for path, stage in staged.items():
            stage.replace(path)
        for folder in {path.parent for path in targets}:
            _sync(folder)
        for content in streamed.values():
            _write_stdout(content)
    except (OSError, RuntimeError) as error:  # torch.save tells of a full disk by the latter
        raise MachineError(
            f"cannot be written ({getattr(error, 'strerror', None) or error})",
            where=getattr(error, "filename", None) or next(iter(contents)),
            remedy="Free space or permit writing there; what was there before is untouched",
        ) from error
    finally:
        for stage in staged.values():
            with suppress(OSError):  # a disk that is read-only refuses even what is not there
                stage.unlink(missing_ok=True)


def nearest_existing_parent(path: Path) -> Path:
    """`path`, or the nearest of its parents that is there."""
    return next(place for place in (path, *path.parents) if place.exists())


def require_own(path: Path, sign: str, what: str) -> None:
    """Raises UsageError where `path` is a folder, a device, a pipe, or a file that holds something without `sign`.

    `sign` is looked for among the first 1,000 characters. Standard output is fine.
    """
    if _is_stdout(path):
        return
    if path.is_dir():
        raise UsageError("is a folder", where=path, remedy=f"Give the name of a file for {what}")
    target = _target(path)
    if target.exists() and target.stat().st_size:
        with path.open(encoding="utf-8", errors="replace") as file:
            if sign not in file.read(1000):
                raise UsageError(f"exists and is not {what} of mlcl", where=path, remedy="Choose another name")


def write_file(path: Path, content: bytes | Callable[[Path], None]) -> None:
    """`write_files` for one file."""
    write_files({path: content})


@contextmanager
def exclusive(path: Path, taken: Callable[[], None]) -> Iterator[None]:
    """One process at a time holds the lock file `path`, and gives it up when it dies.

    `taken` is called where another one holds it: it raises, or returns to wait. Where the file system has no locks,
    nothing is locked, and a warning says so, once per folder. Raises MachineError where the lock file cannot be opened.
    """
    from filelock import FileLock

    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lock, taken)
    except (OSError, NotImplementedError, UserWarning) as error:  # filelock has three ways to say ENOSYS
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            remedy = "Ask for permission to write there, or choose another workspace"
            raise MachineError(f"cannot be locked ({error.strerror})", where=path, remedy=remedy) from error
        if path.parent not in _UNLOCKED:
            _UNLOCKED.add(path.parent)
            logger.warning(f"{path.parent}: this file system has no locks; run one mlcl command at a time here")
    try:
        yield
    finally:
        with suppress(OSError):  # closing its file has released it
            lock.release()


def _acquire(lock: "FileLock", taken: Callable[[], None]) -> None:
    from filelock import Timeout

    with warnings.catch_warnings():
        warnings.filterwarnings("error", "flock not supported", UserWarning)  # it would use a file that outlives us
        try:
            lock.acquire(timeout=0)
        except Timeout:
            taken()
            lock.acquire()


def to_json(value: Any, *, indent: int | None = None) -> bytes:
    """UTF-8 JSON with a final newline; NaN and infinities are refused (ValueError)."""
    separators = None if indent else (",", ":")
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)
    lines = text.split("\n")  # those of the indentation: inside strings they are escaped
    return ("\n".join(map(printable_json, lines)) + "\n").encode()


def _target(path: Path) -> Path:
    """The regular file, there or not yet, that writing to `path` means. Raises UsageError where it is none."""
    try:
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        mode = target.stat().st_mode if target.exists() else None
    except OSError as error:
        raise MachineError(
            f"cannot be written ({error.strerror})", where=path, remedy="Choose another place to write to"
        ) from error
    if mode is not None and not stat.S_ISREG(mode):
        raise UsageError("is not a regular file", where=path, remedy="Choose another name")
    return target


def _is_stdout(path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


def _write_stdout(content: bytes) -> None:
    sys.stdout.flush()
    with open(1, "wb", closefd=False) as file:
        file.write(content)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
