"""A run's folder: resolved profile, logs, best and last checkpoints, and a summary that later commands choose by."""

import csv
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from mlcl_cli.errors import DataError, MachineError
from mlcl_cli.files import to_json, write_file
from mlcl_cli.training.checkpoints import SUFFIX, Kind, save_checkpoint

SUMMARY = "run.json"
LAST = f"last{SUFFIX}"
SECONDS_BETWEEN_SAVES = 30.0


@dataclass(frozen=True, slots=True)
class Best:
    """The best epoch so far by one metric."""

    epoch: int
    score: float
    checkpoint: str
    metrics: Mapping[str, float]


@dataclass
class Run:
    """A training run that is under way in `folder`.

    `kind` is what it trains, `about` describes it in every checkpoint, `bests` names the metrics that each keep a
    best checkpoint of their own; the first of them is the one that the run is judged by. A new best waits in memory
    for `SECONDS_BETWEEN_SAVES` at most, so that an epoch of milliseconds does not wait for the disk.
    """

    folder: Path
    kind: Kind
    epochs: int
    bests: Sequence[str]
    about: Mapping[str, Any]
    found: dict[str, Best] = field(default_factory=dict)
    status: str = ""
    _waiting: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    _columns: list[str] = field(default_factory=list)
    _epoch: int = 0
    _created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="microseconds"))
    _saved: float = field(default_factory=time.monotonic)

    @classmethod
    def create(cls, parent: Path, name: str, profile: str, **parts: Any) -> Self:
        """Makes a folder of its own under `parent`, named after `name` and the time, with the resolved profile."""
        stamp = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
        for number in range(1000):
            folder = parent / (f"{stamp}-{number}" if number else stamp)
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise MachineError(
                    f"cannot be made ({error.strerror})", where=folder, remedy="Choose another workspace in the profile"
                ) from error
            write_file(folder / "profile.yaml", profile.encode())
            return cls(folder, **parts)
        raise AssertionError("a thousand runs within a second")

    def __enter__(self) -> Self:
        self._summarise("running")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._save_waiting()
        self._summarise("finished" if kind is None else "interrupted")

    @property
    def best(self) -> Best:
        """The best epoch by the metric that the run is judged by."""
        return self.found[self.bests[0]]

    def record(
        self,
        epoch: int,
        figures: Mapping[str, float],
        metrics: Mapping[str, float] | None,
        weights: Callable[[], Mapping[str, Tensor]],
    ) -> None:
        """Logs an epoch and keeps its weights where it is a best or the last."""
        self._epoch = epoch
        self._log({"epoch": epoch, **figures, **(metrics or {})})
        if metrics is not None:
            better = [name for name in self.bests if self._is_better(name, metrics[name])]
            state = {name: tensor.clone() for name, tensor in weights().items()} if better else {}
            for name in better:
                file = f"best{SUFFIX}" if name == self.bests[0] else f"best-{name}{SUFFIX}"
                self.found[name] = Best(epoch, metrics[name], file, dict(metrics))
                self._waiting[name] = state
        self.status = f"loss {figures['loss']:.4f}"
        if self.found:
            self.status += f" · best {self.bests[0]} {self.best.score:.2f} at epoch {self.best.epoch}"
        if epoch == self.epochs or time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES:
            self._save_waiting()
            save_checkpoint(self.folder / LAST, self.kind, weights(), {**self.about, "epoch": epoch})
            self._summarise("running")
            self._saved = time.monotonic()

    def _is_better(self, name: str, score: float) -> bool:
        return name not in self.found or score > self.found[name].score

    def _save_waiting(self) -> None:
        for name, state in self._waiting.items():
            best = self.found[name]
            about = {**self.about, "epoch": best.epoch, "selected_by": name, "score": best.score}
            about["metrics"] = dict(best.metrics)
            save_checkpoint(self.folder / best.checkpoint, self.kind, state, about)
        self._waiting.clear()

    def _summarise(self, state: str) -> None:
        bests = {
            name: {"epoch": best.epoch, "score": best.score, "checkpoint": best.checkpoint, "metrics": best.metrics}
            for name, best in self.found.items()
        }
        summary = {
            "kind": self.kind,
            "created": self._created,
            "state": state,
            "epochs": self.epochs,
            "epoch": self._epoch,
            "bests": bests,
        }
        write_file(self.folder / SUMMARY, to_json({**summary, **self.about}, indent=2))

    def _log(self, row: Mapping[str, float]) -> None:
        with (self.folder / "metrics.jsonl").open("ab") as lines:
            lines.write(to_json(row))
        path = self.folder / "metrics.csv"
        if new := [name for name in row if name not in self._columns]:
            before = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
            self._columns += new
            write_file(path, _csv(self._columns, before, header=True))
        with path.open("ab") as table:
            table.write(_csv(self._columns, [row]))


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """What a run's summary tells; `bests` as `Run` wrote them."""

    folder: Path
    summary: Mapping[str, Any]

    def checkpoint(self, metric: str | None = None) -> tuple[Path, float] | None:
        """The best checkpoint by `metric` (default: what the run was judged by) and its score, if there is one."""
        bests = self.summary["bests"]
        best = bests.get(metric, None) if metric else next(iter(bests.values()), None)
        return (self.folder / best["checkpoint"], float(best["score"])) if best else None


def find_runs(parent: Path) -> list[FinishedRun]:
    """The runs under `parent` whose summary can be read and that have a best checkpoint, oldest first."""
    runs = []
    for path in sorted(parent.glob(f"*/{SUMMARY}")):
        try:
            summary = json.loads(path.read_text())
            run = FinishedRun(path.parent, summary)
            best, _created = run.checkpoint(), summary["created"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            remedy = "Delete the run's folder, or mend the file"
            raise DataError(f"is not a run's summary ({error})", where=path, remedy=remedy) from error
        if best is not None and best[0].exists():
            runs.append(run)
    return sorted(runs, key=lambda run: (run.summary["created"], run.folder))


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, header: bool = False) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
