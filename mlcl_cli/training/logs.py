"""A run's logs: what each epoch gave, as JSON lines and as a table, how long it took, and TensorBoard's scalars."""

import contextlib
import csv
import importlib.util
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from mlcl_cli.errors import DataError, MachineError
from mlcl_cli.files import to_json, write_file
from mlcl_cli.inputs import parse_json

LINES, TABLE, TIMES = ("metrics.jsonl", "metrics.csv", "times.jsonl")
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

    def add(self, row: Mapping[str, float], seconds: float) -> None:
        """Adds an epoch's row. Raises MachineError where the disk is full."""
        self._append(LINES, to_json(row))
        path = self._folder / TABLE
        if new := [name for name in row if name not in self._columns]:
            before = list(csv.DictReader(path.read_text("utf-8").splitlines())) if path.exists() else []
            self._columns += new
            write_file(path, _csv(self._columns, before, header=True))
        self._append(TABLE, _csv(self._columns, [row]))
        self._append(TIMES, to_json({"epoch": row["epoch"], "seconds": seconds}))

    def lengths(self) -> dict[str, int]:
        """How long each log is, in bytes, once it is safe on the disk."""
        return {name: _synced_length(self._folder / name) for name in (LINES, TABLE, TIMES)}

    def rewind(self, lengths: Mapping[str, int]) -> None:
        """Cuts what was written after `lengths` were taken."""
        for name, length in lengths.items():
            path = self._folder / name
            content = path.read_bytes() if path.exists() else b""
            if len(content) != length:
                write_file(path, content[:length])
        table = self._folder / TABLE
        self._columns = (
            list(csv.DictReader(table.read_text("utf-8").splitlines()).fieldnames or []) if table.exists() else []
        )

    def _append(self, name: str, text: bytes) -> None:
        try:
            with (self._folder / name).open("ab") as file:
                file.write(text)
        except OSError as error:
            raise MachineError(
                f"cannot be written ({error.strerror})", where=self._folder / name, remedy="Free space, then --resume"
            ) from error


def read_log(folder: Path, name: str = LINES) -> list[dict[str, float]]:
    """The rows of a log of JSON lines, oldest first; of a run that is under way perhaps without its last one."""
    path = folder / name
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(parse_json(line))
        except ValueError as error:
            if number < len(lines):
                raise DataError("is no log of mlcl", where=f"{path}, line {number}", remedy="Mend the line") from error
    return rows


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


def _synced_length(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, header: bool = False) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
