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

from mlcl_cli.errors import REMEDIES, MachineError, UsageError
from mlcl_cli.streams import printable_json

logger = logging.getLogger(__name__)

_FOLDERS_WITHOUT_LOCKS: set[Path] = set()
os.umask(_UMASK := os.umask(0o077))  # the only way to read it


def write_files(contents: Mapping[Path, bytes | Callable[[Path], None]]) -> None:
    """Write all files or none: each is staged beside its target and synced, and only then are all renamed.

    A value is the bytes, or a function that writes to the path it is given. Missing folders are made; a symbolic link
    stays, and its target is written; bytes for /dev/stdout are written to standard output. Raises UsageError, before
    anything is staged, if a target is not a regular file, and MachineError if it cannot be written.
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
            staged[path].chmod(0o666 & ~_UMASK)  # safetensors makes its files private
            _sync(staged[path])
        for path, stage in staged.items():
            stage.replace(path)
        for folder in {path.parent for path in targets}:
            _sync(folder)
        for content in streamed.values():
            sys.stdout.flush()
            with open(1, "wb", closefd=False) as file:
                file.write(content)
    except (OSError, RuntimeError) as error:  # torch.save raises the latter for a full disk
        number = getattr(error, "errno", None)
        remedy = (
            "Free up space, or choose another path" if number is None else REMEDIES.get(number, "Choose another path")
        )
        raise MachineError(
            f"cannot be written ({getattr(error, 'strerror', None) or error})",
            where=getattr(error, "filename", None) or next(iter(contents)),
            remedy=f"{remedy}; existing files are unchanged",
        ) from error
    finally:
        for stage in staged.values():
            with suppress(OSError):  # a read-only disk refuses to delete even a missing file
                stage.unlink(missing_ok=True)


def write_file(path: Path, content: bytes | Callable[[Path], None]) -> None:
    """`write_files` for one file."""
    write_files({path: content})


def to_json(value: object, *, indent: int | None = None) -> bytes:
    """UTF-8 JSON with a final newline; NaN and infinities are refused (ValueError)."""
    separators = None if indent else (",", ":")
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)
    return f"{printable_json(text)}\n".encode()


def nearest_existing_parent(path: Path) -> Path:
    """`path` itself if it exists, or the nearest of its parents that does."""
    return next(place for place in (path, *path.parents) if place.exists())


def require_replaceable(path: Path, signature: str, what: str) -> None:
    """Raise UsageError unless `path` is new, empty, standard output, or a file with `signature` near its start."""
    if _is_stdout(path):
        return
    if path.is_dir():
        raise UsageError("is a folder", where=path, remedy=f"Choose a file name for {what}")
    target = _target(path)
    if target.exists() and target.stat().st_size:
        with path.open(encoding="utf-8", errors="replace") as file:
            if signature not in file.read(1000):
                what = f"already exists and is not {what} written by mlcl"
                raise UsageError(what, where=path, remedy="Choose another name")


@contextmanager
def exclusive_lock(path: Path, on_busy: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`, as one process at a time can; the system releases it when the process dies.

    If another process holds it, `on_busy` is called: it raises, or returns to wait. Where the file system has no locks,
    a warning is logged once for each folder. Raises MachineError if the lock file cannot be opened.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "flock not supported", UserWarning)  # its substitute outlives the process
            try:
                lock.acquire(timeout=0)
            except Timeout:
                on_busy()
                lock.acquire()
    except (OSError, NotImplementedError, UserWarning) as error:  # filelock has three ways to report ENOSYS
        if isinstance(error, OSError) and error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            remedy = "Ask for permission to write there, or choose another workspace"
            raise MachineError(f"cannot be locked ({error.strerror})", where=path, remedy=remedy) from error
        if path.parent not in _FOLDERS_WITHOUT_LOCKS:
            _FOLDERS_WITHOUT_LOCKS.add(path.parent)
            what = "this file system does not support locks; run only one mlcl command at a time in this workspace"
            logger.warning(f"{path.parent}: {what}")
    try:
        yield
    finally:
        with suppress(OSError):  # closing the file has released it
            lock.release()


def _target(path: Path) -> Path:
    """The regular file, existing or not, that writing to `path` means."""
    try:
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        mode = target.stat().st_mode if target.exists() else stat.S_IFREG
    except OSError as error:
        what = f"cannot be written ({error.strerror})"
        raise MachineError(what, where=path, remedy="Choose another path") from error
    if not stat.S_ISREG(mode):
        raise UsageError("is not a regular file", where=path, remedy="Choose another name")
    return target


def _is_stdout(path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
