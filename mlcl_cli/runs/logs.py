"""A run's logs: the figures and seconds of each epoch as JSON lines, and a table of the figures."""

import contextlib
import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from pydantic import ConfigDict, FiniteFloat, TypeAdapter

from mlcl_cli.atomic_files import to_json, write_file
from mlcl_cli.errors import DataError, MachineError

LogName = Literal["metrics.jsonl", "metrics.csv", "times.jsonl"]
NAMES: tuple[LogName, ...] = get_args(LogName)
LINES, TABLE, TIMES = NAMES
ROW = TypeAdapter(dict[str, int | FiniteFloat], config=ConfigDict(strict=True))
LEARNED = ("temperature", "temperature_sscl", "level_weight")
NOT_TERMS_OF_LOSS = ("epoch", "loss", "gradient_norm", "skipped_steps", *LEARNED)


def terms_of(figures: Mapping[str, float]) -> dict[str, float]:
    """The summands of the loss among the figures of an epoch's training."""
    return {name: value for name, value in figures.items() if name not in NOT_TERMS_OF_LOSS}


class Logs:
    """`metrics.jsonl` and `metrics.csv` depend on the run alone, bit for bit; `times.jsonl` also on the machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[Mapping[str, float]] = []
        self._lengths: dict[LogName, int] = {LINES: 0, TIMES: 0}

    def add(self, row: Mapping[str, float], seconds: float) -> None:
        """Add an epoch to both JSON-lines logs. Raises MachineError, `lengths` unchanged, if one cannot be written."""
        lines = self._append(LINES, to_json(row))
        times = self._append(TIMES, to_json({"epoch": row["epoch"], "seconds": seconds}))
        self._lengths = {LINES: lines, TIMES: times}
        self._rows.append(row)

    def write_table(self) -> None:
        """Write `metrics.csv`. Raises as `require_regular_files` does, MachineError where it cannot be written."""
        if self._rows:
            self.require_regular_files()
            text = io.StringIO()
            columns = dict.fromkeys(name for row in self._rows for name in row)
            writer = csv.DictWriter(text, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)
            write_file(self._folder / TABLE, text.getvalue().encode())

    def lengths(self) -> dict[LogName, int]:
        """The length in bytes of each log of JSON lines after its last whole row; synced to the disk if possible."""
        for name in self._lengths:
            # A log that cannot be synced must not prevent saving a state.
            with contextlib.suppress(OSError), (self._folder / name).open("rb") as file:
                os.fsync(file.fileno())
        return dict(self._lengths)

    def require_regular_files(self) -> None:
        """Raises DataError where a log is a symbolic link, a folder or a device, which no run writes."""
        for path in (self._folder / name for name in NAMES):
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise DataError("is not a regular file", where=path, remedy="Move it elsewhere, then use --resume")

    def rewind(self, lengths: Mapping[LogName, int]) -> None:
        """Cut what was written after `lengths` were taken. Raises DataError as `read_log` does."""
        for name in self._lengths:
            path, length = self._folder / name, lengths.get(name, 0)
            content = path.read_bytes() if path.exists() else b""
            if len(content) > length:
                write_file(path, content[:length])
            self._lengths[name] = min(length, len(content))
        self._rows = list(read_log(self._folder))

    def _append(self, name: str, text: bytes) -> int:
        try:
            with (self._folder / name).open("ab") as file:
                file.write(text)
                return file.tell()
        except OSError as error:
            raise MachineError(
                f"cannot be written ({error.strerror})",
                where=self._folder / name,
                remedy="Free up space, then use --resume",
            ) from error


def read_log(folder: Path, name: str = LINES) -> list[dict[str, float]]:
    """The rows of a log of JSON lines, oldest first. A last line that is not complete yet is left out.

    Raises DataError where it is not a regular file, or a line is not an object of finite numbers.
    """
    path = folder / name
    if not path.exists():
        return []
    if not path.is_file():
        raise DataError("is not a regular file", where=path, remedy="Move it elsewhere")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    keys = {"epoch", "seconds"} if name == TIMES else set()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = ROW.validate_json(line)
            if not keys <= row.keys():
                raise ValueError(line)
            rows.append(row)
        except ValueError as error:
            if number < len(lines):
                raise DataError(
                    "is not a log written by mlcl", where=f"{path}, line {number}", remedy="Fix or delete that line"
                ) from error
    return rows
