"""A run's folder: resolved profile, logs, best and last checkpoints, and a summary that later commands choose by."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from torch import Tensor

from mlcl_cli.errors import DataError, MachineError
from mlcl_cli.files import exclusive, standing, to_json, write_file
from mlcl_cli.inputs import parse_json
from mlcl_cli.interrupts import unbroken
from mlcl_cli.training.checkpoints import SUFFIX, Kind, save_checkpoint
from mlcl_cli.training.logs import Logs, Scalars
from mlcl_cli.training.state import TrainingState, load_state, save_state

SUMMARY = "run.json"
NEXT, LAST, PREVIOUS = (f"{name}{SUFFIX}" for name in ("next", "last", "previous"))
LOCK = ".lock"
SECONDS_BETWEEN_SAVES = 30.0


@dataclass(frozen=True, slots=True)
class Best:
    """The best epoch so far by one metric."""

    epoch: int
    score: float
    checkpoint: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Interval:
    """How often a run saves its state: every so many epochs (None: by time alone), and every so many minutes."""

    epochs: int | None = None
    minutes: float = 5.0


@dataclass
class Run:
    """A training run that is under way in `folder`, which no other process may train meanwhile.

    `kind` is what it trains, `command` how it was started, `about` describes it in every checkpoint, `bests` names the
    metrics that each keep a best checkpoint of their own; the first of them is the one that the run is judged by. A new
    best waits in memory for `SECONDS_BETWEEN_SAVES` at most, so that an epoch of milliseconds does not wait for the
    disk.
    """

    folder: Path
    kind: Kind
    command: str
    epochs: int
    bests: Sequence[str]
    about: Mapping[str, Any]
    interval: Interval = Interval()
    tensorboard: bool = False
    found: dict[str, Best] = field(default_factory=dict)
    _scalars: Scalars | None = None
    _waiting: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    _epoch: int = 0
    _created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="microseconds"))
    _bests_saved: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._logs = Logs(self.folder)
        self._held = ExitStack()
        self._held.enter_context(exclusive(self.folder / LOCK, self._refuse))

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

    @classmethod
    def resume(cls, stored: "StoredRun", state: Path | None, warn: Callable[[str], None], **parts: Any) -> "Resumed":
        """Takes up a run at `state`, or at its last good one; a damaged one is named by `warn` and passed over.

        Logs go back to where they were then. Raises DataError where there is no good state, MachineError where another
        process trains the run.
        """
        folder = stored.folder
        run = cls(folder, **parts, _created=stored.summary["created"])
        loaded, about = _last_good(folder, warn) if state is None else load_state(state)
        for stale in folder.glob(".*.partial"):
            stale.unlink(missing_ok=True)
        run.found = {name: Best(**best) for name, best in about["bests"].items()}
        run._epoch = loaded.epoch - 1
        run._logs.rewind(about["logs"])
        return Resumed(run, loaded)

    def __enter__(self) -> Self:
        self._summarise("running")
        if self.tensorboard:
            self._scalars = Scalars.open(self.folder, self._epoch + 1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            with unbroken():
                self._save_waiting()
                self._summarise("finished" if kind is None else "interrupted")
        finally:
            if self._scalars is not None:
                self._scalars.close()
            self._held.close()

    def _refuse(self) -> None:
        raise MachineError("another process is training this run", where=self.folder, remedy="Wait for it, or stop it")

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
        seconds: float,
    ) -> None:
        """Logs an epoch, which took `seconds` before its validation, and keeps its weights where it is a best."""
        self._epoch = epoch
        self._logs.add({"epoch": epoch, **figures, **(metrics or {})}, seconds)
        if self._scalars is not None:
            self._scalars.add(epoch, figures, metrics or {}, seconds)
        if metrics is not None:
            better = [name for name in self.bests if self._is_better(name, metrics[name])]
            state = {name: tensor.clone() for name, tensor in weights().items()} if better else {}
            for name in better:
                file = f"best{SUFFIX}" if name == self.bests[0] else f"best-{name}{SUFFIX}"
                self.found[name] = Best(epoch, metrics[name], file, dict(metrics))
                self._waiting[name] = state
        if time.monotonic() - self._bests_saved > SECONDS_BETWEEN_SAVES:
            self._save_waiting()
            self._summarise("running")

    def save_if_due(self, state: Callable[[], TrainingState], epoch: int | None = None) -> None:
        """Saves the state where the interval says so, or the last `epoch` is done."""
        every = self.interval.epochs
        due = time.monotonic() - self._saved > 60 * self.interval.minutes
        if due or (epoch is not None and (epoch == self.epochs or (every is not None and epoch % every == 0))):
            self.save(state())

    def save(self, state: TrainingState) -> None:
        """Keeps `state` as the last one and the one before it as the previous; one of them is good at any moment."""
        self._save_waiting()
        bests = {name: asdict(best) for name, best in self.found.items()}
        about = {**self.about, "kind": self.kind, "bests": bests, "logs": self._logs.lengths()}
        following, last = self.folder / NEXT, self.folder / LAST
        save_state(following, state, about)
        if last.exists():
            last.replace(self.folder / PREVIOUS)
        following.replace(last)
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
        self._bests_saved = time.monotonic()

    def _summarise(self, state: str) -> None:
        bests = {
            name: {"epoch": best.epoch, "score": best.score, "checkpoint": best.checkpoint, "metrics": best.metrics}
            for name, best in self.found.items()
        }
        summary = {
            "kind": self.kind,
            "command": self.command,
            "created": self._created,
            "state": state,
            "epochs": self.epochs,
            "epoch": self._epoch,
            "bests": bests,
        }
        write_file(self.folder / SUMMARY, to_json({**summary, **self.about}, indent=2))


class Resumed(NamedTuple):
    """A run that is taken up again, and the state to go on from."""

    run: Run
    state: TrainingState


def require_room(folder: Path, state: int) -> None:
    """Raises MachineError where the disk has no room for two states of that many bytes: one is kept until two are."""
    free = shutil.disk_usage(standing(folder)).free
    if free < 2 * state:
        raise MachineError(
            f"{free / 2**20:,.0f} MB are free, and a run's two checkpoints take {2 * state / 2**20:,.0f} MB",
            where=folder,
            remedy="Free space, or choose another workspace",
        )


def _last_good(folder: Path, warn: Callable[[str], None]) -> tuple[TrainingState, dict[str, Any]]:
    for name in (NEXT, LAST, PREVIOUS):
        if (folder / name).exists():
            try:
                loaded = load_state(folder / name)
                if name == NEXT:  # cut between the two renames of a save
                    (folder / NEXT).replace(folder / LAST)
                return loaded
            except DataError as error:
                warn(f"{error.where}: {error.what}; the one before it is taken")
    raise DataError("has no good state to go on from", where=folder, remedy="Start anew, without --resume")


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What a run's summary tells; `bests` as `Run` wrote them."""

    folder: Path
    summary: Mapping[str, Any]

    def checkpoint(self, metric: str | None = None) -> tuple[Path, float] | None:
        """The best checkpoint by `metric` (default: what the run was judged by) and its score, if there is one."""
        bests = self.summary["bests"]
        best = bests.get(metric, None) if metric else next(iter(bests.values()), None)
        return (self.folder / best["checkpoint"], float(best["score"])) if best else None


def find_runs(parent: Path, *, unfinished: bool = False) -> list[StoredRun]:
    """The runs under `parent`, oldest first: those with a best checkpoint, or those `unfinished` that can go on.

    Raises DataError for a summary that cannot be read.
    """
    runs = []
    for path in sorted(parent.glob(f"*/{SUMMARY}")):
        try:
            summary = parse_json(path.read_bytes())
            run = StoredRun(path.parent, summary)
            best, state, _created = run.checkpoint(), summary["state"], summary["created"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            remedy = f"Mend the file, or delete the run with `mlcl runs rm {path.parent.name}`"
            raise DataError(f"is not a run's summary ({error})", where=path, remedy=remedy) from error
        if unfinished:
            if state != "finished" and any((run.folder / name).exists() for name in (NEXT, LAST, PREVIOUS)):
                runs.append(run)
        elif best is not None and best[0].exists():
            runs.append(run)
    return sorted(runs, key=lambda run: (run.summary["created"], run.folder))
