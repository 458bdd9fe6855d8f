"""A run's logs: what each epoch gave, as JSON lines and as a table, how long it took, and TensorBoard's scalars."""

import contextlib
import csv
import importlib.util
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from mlcl_cli.atomic_files import to_json, write_file
from mlcl_cli.errors import DataError, MachineError

LINES, TABLE, TIMES = NAMES = ("metrics.jsonl", "metrics.csv", "times.jsonl")
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
        self._columns: list[str] = []
        self._lengths = dict.fromkeys(NAMES, 0)

    def add(self, row: Mapping[str, float], seconds: float) -> None:
        """Adds an epoch's row to each log. Raises MachineError where one cannot be written; `lengths` stay then."""
        lengths = {LINES: self._append(LINES, to_json(row))}
        lengths[TIMES] = self._append(TIMES, to_json({"epoch": row["epoch"], "seconds": seconds}))
        path = self._folder / TABLE
        if new := [name for name in row if name not in self._columns]:
            # The table is the last to change: its new header would not fit the old length.
            before = list(csv.DictReader(_lines_of(path))) if path.exists() else []
            columns = [*self._columns, *new]
            content = _csv(columns, [*before, row], header=True)
            write_file(path, content)
            self._columns, lengths[TABLE] = columns, len(content)
        else:
            lengths[TABLE] = self._append(TABLE, _csv(self._columns, [row]))
        self._lengths = lengths

    def lengths(self) -> dict[str, int]:
        """How long each log is after the last whole row, in bytes; synced to the disk where it can be."""
        for name in NAMES:
            with contextlib.suppress(OSError):  # a log that cannot be synced must not keep a state from being saved
                _sync(self._folder / name)
        return dict(self._lengths)

    def require_own(self) -> None:
        """Raises DataError where a log is a symbolic link, a folder or a device: it would not be a log of this run."""
        for path in (self._folder / name for name in NAMES):
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise DataError("is not a regular file", where=path, remedy="Move it away, then --resume")

    def rewind(self, lengths: Mapping[str, int]) -> None:
        """Cuts what was written after `lengths` were taken. Raises DataError as `require_own` does."""
        self.require_own()
        for name in NAMES:
            path, length = self._folder / name, lengths.get(name, 0)
            content = path.read_bytes() if path.exists() else b""
            if len(content) > length:
                write_file(path, content[:length])
            self._lengths[name] = min(length, len(content))
        table = self._folder / TABLE
        self._columns = list(csv.DictReader(_lines_of(table)).fieldnames or []) if table.exists() else []

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
    """The rows of a log of JSON lines, oldest first; of a run that is under way perhaps without its last one.

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
                    "is not a log of mlcl", where=f"{path}, line {number}", remedy="Fix the line"
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
    """An epoch's figures as TensorBoard scalars, where `tensorboard` is installed; written by a thread of its own."""

    def __init__(self, writer: Any, summary: Any) -> None:
        self._writer, self._summary = writer, summary

    @classmethod
    def open(cls, folder: Path, epoch: int) -> Self | None:
        """Scalars from `epoch` on, where TensorBoard is; it forgets later ones that a run that was cut has left."""
        if importlib.util.find_spec("tensorboard") is None:
            return None
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard import SummaryWriter

        return cls(SummaryWriter(str(folder), purge_step=epoch, flush_secs=SECONDS_BETWEEN_FLUSHES), Summary)

    def add(self, epoch: int, figures: Mapping[str, float], metrics: Mapping[str, float], seconds: float) -> None:
        """Adds `train/…`, `val/…` and `time/epoch_seconds` of an epoch."""
        tagged = {f"train/{name}": value for name, value in figures.items()}
        tagged |= {f"val/{name}": value for name, value in metrics.items()} | {"time/epoch_seconds": seconds}
        # One event for all: one for each takes eight times as long, and an epoch may take but milliseconds.
        values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in tagged.items()]
        with contextlib.suppress(OSError):  # a full disk is told by the logs that count
            self._writer.file_writer.add_summary(self._summary(value=values), epoch)

    def close(self) -> None:
        """Writes what is waiting."""
        with contextlib.suppress(OSError):
            self._writer.close()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, header: bool = False) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
