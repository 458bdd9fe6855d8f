"""A run's logs: the figures and seconds of each epoch as JSON lines, a table of the figures, TensorBoard scalars."""

import contextlib
import csv
import importlib.util
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, get_args

from mlcl_cli.atomic_files import to_json, write_file
from mlcl_cli.errors import DataError, MachineError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LogName = Literal["metrics.jsonl", "metrics.csv", "times.jsonl"]
NAMES: tuple[LogName, ...] = get_args(LogName)
LINES, TABLE, TIMES = NAMES
LEARNED = ("temperature", "temperature_sscl", "level_weight")
NO_TERMS = ("epoch", "loss", "gradient_norm", "skipped_steps", *LEARNED)
SECONDS_BETWEEN_FLUSHES = 10


def terms_of(figures: Mapping[str, float]) -> dict[str, float]:
    """The summands of the loss among the figures of an epoch's training."""
    return {name: value for name, value in figures.items() if name not in NO_TERMS}


class Logs:
    """`metrics.jsonl` and `metrics.csv` depend on the run alone, bit for bit; `times.jsonl` is the machine's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[Mapping[str, float]] = []
        self._lengths: dict[LogName, int] = {LINES: 0, TIMES: 0}

    def add(self, row: Mapping[str, float], seconds: float) -> None:
        """Add an epoch to the logs of JSON lines.

        Raises MachineError where one cannot be written; `lengths` then stay as they were.
        """
        lengths: dict[LogName, int] = {LINES: self._append(LINES, to_json(row))}
        lengths[TIMES] = self._append(TIMES, to_json({"epoch": row["epoch"], "seconds": seconds}))
        self._lengths = lengths
        self._rows.append(row)

    def write_table(self) -> None:
        """Write the rows of `metrics.jsonl` to `metrics.csv`.

        Raises DataError as `require_own` does, MachineError where the table cannot be written.
        """
        if self._rows:
            self.require_own()
            text = io.StringIO()
            columns = list(dict.fromkeys(name for row in self._rows for name in row))
            writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)
            write_file(self._folder / TABLE, text.getvalue().encode())

    def lengths(self) -> dict[LogName, int]:
        """The length in bytes of each log of JSON lines after its last whole row; synced to the disk if possible."""
        for name in self._lengths:
            with contextlib.suppress(OSError):  # a log that cannot be synced must not keep a state from being saved
                _sync(self._folder / name)
        return dict(self._lengths)

    def require_own(self) -> None:
        """Raises DataError where a log is a symbolic link, a folder or a device: it would not be a log of this run."""
        for path in (self._folder / name for name in NAMES):
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise DataError("is not a regular file", where=path, remedy="Move it away, then --resume")

    def rewind(self, lengths: Mapping[LogName, int]) -> None:
        """Cut what was written after `lengths` were taken. Raises DataError as `read_log` does."""
        for name in self._lengths:
            path, length = self._folder / name, lengths.get(name, 0)
            content = path.read_bytes() if path.exists() else b""
            if len(content) > length:
                write_file(path, content[:length])
            self._lengths[name] = min(length, len(content))
        self._rows = [*read_log(self._folder)]

    def _append(self, name: str, text: bytes) -> int:
        try:
            with (self._folder / name).open("ab") as file:
                file.write(text)
                return file.tell()
        except OSError as error:
            raise MachineError(
                f"cannot be written ({error.strerror})", where=self._folder / name, remedy="Free space, then --resume"
            ) from error


def read_log(folder: Path, name: str = LINES) -> list[dict[str, float]]:
    """The rows of a log of JSON lines, oldest first. A last line that is not complete yet is left out.

    Raises DataError where it is not a regular file, or a line is not an object of finite numbers.
    """
    path = folder / name
    if path.exists() and not path.is_file():
        raise DataError("is not a regular file", where=path, remedy="Move it away")
    lines = _lines_of(path) if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_numbers(line, ("epoch", "seconds") if name == TIMES else ()))
        except (ValueError, RecursionError) as error:
            if number < len(lines):
                raise DataError(
                    "is not a log written by mlcl", where=f"{path}, line {number}", remedy="Fix the line"
                ) from error
    return rows


def _numbers(line: str, keys: Sequence[str]) -> dict[str, float]:
    row = json.loads(line)
    if not isinstance(row, dict) or not set(keys) <= set(row):
        raise ValueError(line)
    if not all(type(value) in (int, float) and math.isfinite(value) for value in row.values()):
        raise ValueError(line)
    return row


class Scalars:
    """An epoch's figures as TensorBoard scalars, where `tensorboard` is installed."""

    def __init__(self, writer: "SummaryWriter") -> None:
        self._writer = writer

    @classmethod
    def open(cls, folder: Path, epoch: int) -> Self | None:
        """Scalars from `epoch` on, without later ones of an interrupted run; None where TensorBoard is missing."""
        if importlib.util.find_spec("tensorboard") is None:
            return None
        from torch.utils.tensorboard import SummaryWriter

        return cls(SummaryWriter(str(folder), purge_step=epoch, flush_secs=SECONDS_BETWEEN_FLUSHES))

    def add(self, epoch: int, figures: Mapping[str, float], metrics: Mapping[str, float], seconds: float) -> None:
        """Add `train/…`, `val/…` and `time/epoch_seconds` of an epoch."""
        scalars = {f"train/{name}": value for name, value in figures.items()}
        scalars |= {f"val/{name}": value for name, value in metrics.items()} | {"time/epoch_seconds": seconds}
        with contextlib.suppress(OSError):  # the logs that count report a full disk
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, epoch)

    def close(self) -> None:
        """Write what is pending."""
        with contextlib.suppress(OSError):
            self._writer.close()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
