"""What LanceDB leaves to others about a table's files: one writer at a time, and safety from power cuts.

LanceDB never syncs. A table's commits are the numbered manifests in `_versions`; everything else is written before the
manifest that refers to it, under a new name, and never changed.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from mlcl_cli.atomic_files import exclusive_lock, write_file
from mlcl_cli.stores.lance_errors import read_json

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class _Mark(BaseModel):
    """The newest version that is known to be on the disk, and the boot of the machine that saw to it."""

    version: int
    boot: str


_MARK = TypeAdapter(_Mark)


class TableFiles:
    """The folder of a table, and what lies beside it: the report on its index, its lock, its mark."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.report = folder, folder.with_suffix(".index.json")
        self._lock, self._mark = folder.with_suffix(".lock"), folder.with_suffix(".synced.json")
        self._synced: set[str] = set()

    def exists(self) -> bool:
        """Whether the table has a version: a process that makes one may die before."""
        return bool(self._versions())

    @contextmanager
    def commit(self) -> Iterator[None]:
        """Change the table inside: no other process does, and what was written is on the disk afterwards."""
        with exclusive_lock(self._lock, lambda: None):
            self._recover()
            yield
            self._sync()

    def recover(self) -> None:
        """Make the table readable again after a power cut."""
        mark = self._read_mark()
        if mark is not None and mark.boot != _boot() and os.access(self.folder, os.W_OK):
            with self.commit():
                pass

    def identify(self, version: int) -> str:
        """A name for a version; after a power cut, its number alone may come again."""
        path = self._versions().get(version)
        return f"{version}.{path.stat().st_mtime_ns}" if path is not None else str(version)

    def age_of_version_before(self, seconds: float) -> float | None:
        """The age in seconds of the version that was the newest so many seconds ago; None if there was none."""
        now = time.time()
        ages = (now - path.stat().st_mtime for path in self._versions().values())
        return min((age for age in ages if age > seconds), default=None)

    def remove(self) -> None:
        """Delete the table. If this is interrupted, the table does not exist, and deleting it again takes the rest."""
        shutil.rmtree(self.folder / "_versions", ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in (self.report, self._mark):
            path.unlink(missing_ok=True)

    def _versions(self) -> dict[int, Path]:
        folder = self.folder / "_versions"
        with suppress(FileNotFoundError):
            return {_version(path): path for path in folder.iterdir() if path.suffix == ".manifest"}
        return {}

    def _recover(self) -> None:
        """Drop versions that were never synced, and so never acknowledged, if the machine has started anew since.

        Their files may be torn. Without a new start they are whole, and the next sync acknowledges them.
        """
        mark, versions = self._read_mark(), self._versions()
        if mark is None:
            self._sync()
        elif mark.boot != _boot():
            for version, path in versions.items():
                if version > mark.version and mark.version in (0, *versions):
                    path.unlink()
            (self.folder / "_versions" / "latest_version_hint.json").unlink(missing_ok=True)
            self._write_mark(mark.version)

    def _sync(self) -> None:
        """Sync every file and folder of the table that this object has not synced yet."""
        version, present = max(self._versions(), default=0), set[str]()
        for place, folders, files in os.walk(self.folder):
            paths = [f"{place}/{name}" for name in files]
            new = [path for path in paths if path not in self._synced]
            if new or folders:
                for path in (*new, place):
                    _sync(path)
            present.update(paths)
        self._synced = present
        _sync(str(self.folder.parent))
        self._write_mark(version)

    def _read_mark(self) -> _Mark | None:
        return read_json(self._mark, _MARK)

    def _write_mark(self, version: int) -> None:
        write_file(self._mark, _Mark(version=version, boot=_boot()).model_dump_json().encode())


def _version(manifest: Path) -> int:
    number = int(manifest.stem)
    return 2**64 - 1 - number if number >= 2**63 else number  # named so that the newest is listed first


def _boot() -> str:
    """Identifies this start of the machine; empty where the system has no such name."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _sync(path: str) -> None:
    with suppress(FileNotFoundError):  # another process cleaned up
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
