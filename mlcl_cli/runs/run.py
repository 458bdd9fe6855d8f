"""A run's folder: resolved profile, logs, best and last checkpoints, and a summary that later commands choose by."""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from torch import Tensor

from mlcl_cli.atomic_files import exclusive_lock, nearest_existing_parent, to_json, write_file
from mlcl_cli.errors import DataError, MachineError, some
from mlcl_cli.runs.checkpoints import SUFFIX, save_checkpoint
from mlcl_cli.runs.description import Kind, TrainingDescription
from mlcl_cli.runs.logs import Logs, Scalars
from mlcl_cli.runs.summary import SUMMARY, RunSummary, StateProgress
from mlcl_cli.runs.training_state import TrainingState, load_state, save_state
from mlcl_cli.signals import defer_signals

logger = logging.getLogger(__name__)

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
    disk. The weights of every `keep_every`th epoch are kept for good, in a checkpoint of their own.
    """

    folder: Path
    kind: Kind
    command: str
    epochs: int
    bests: Sequence[str]
    about: Mapping[str, Any]
    interval: Interval = Interval()
    keep_every: int | None = None
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
        self._held.enter_context(exclusive_lock(self.folder / LOCK, self._refuse))

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
    def resume(cls, stored: "StoredRun", state: Path | None, **parts: Any) -> "Resumed":
        """Takes up a run at `state`, or at its last good one; damaged ones are skipped with a warning.

        Logs go back to where they were then. Nothing is changed before the state's description is checked. Raises
        DataError where there is no good state or a file of the run is a symbolic link, MachineError where another
        process trains the run.
        """
        folder = stored.folder
        run = cls(folder, **parts, _created=stored.summary["created"])
        try:
            path, loaded, about = _last_good(folder) if state is None else (state, *load_state(state))
            progress = StateProgress.of(about, path)
            run._require_own_files(path, progress)
            if path.name == NEXT and state is None:  # cut between the two renames of a save
                path.replace(folder / LAST)
            for stale in folder.glob(".*.partial"):
                stale.unlink(missing_ok=True)
            run.found = {
                name: Best(best.epoch, best.score, best.checkpoint, best.metrics)
                for name, best in progress.bests.items()
            }
            run._epoch = loaded.epoch - 1
            run._logs.rewind(progress.logs)
        except BaseException:
            run._held.close()
            raise
        return Resumed(run, loaded)

    def __enter__(self) -> Self:
        self._summarize("running")
        if self.tensorboard:
            self._scalars = Scalars.open(self.folder, self._epoch + 1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            # What ended the run is what its user must see, not that this fails, too.
            with suppress(*(() if kind is None else (Exception,))), defer_signals():
                self._save_waiting()
            with suppress(*(() if kind is None else (Exception,))), defer_signals():
                self._summarize("finished" if kind is None else "interrupted")
        finally:
            if self._scalars is not None:
                self._scalars.close()
            self._held.close()

    def _require_own_files(self, state: Path, progress: StateProgress) -> None:
        """A hostile or copied folder may name other metrics, or link to files that are not the run's."""
        if progress.bests and set(progress.bests) != set(self.bests):
            what = f"has bests by {some(sorted(progress.bests))}, expected {some(sorted(self.bests))}"
            raise DataError(what, where=state, remedy="Resume from another state of the run with --run FILE")
        self._logs.require_own()
        names = (SUMMARY, NEXT, LAST, PREVIOUS, *(best.checkpoint for best in progress.bests.values()))
        if links := [self.folder / name for name in names if (self.folder / name).is_symlink()]:
            raise DataError("is a symbolic link", where=links[0], remedy="Replace it by the file itself, then --resume")

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
        """Keeps an epoch's weights where they are due, and logs it; it took `seconds` before its validation.

        The log comes last: where this raises, the epoch counts as not recorded, and a resumed run records it again.
        """
        self._epoch = epoch
        if metrics is not None:
            better = [name for name in self.bests if self._is_better(name, metrics[name])]
            state = {name: tensor.clone() for name, tensor in weights().items()} if better else {}
            for name in better:
                file = f"best{SUFFIX}" if name == self.bests[0] else f"best-{name}{SUFFIX}"
                self.found[name] = Best(epoch, metrics[name], file, dict(metrics))
                self._waiting[name] = state
        if self.keep_every is not None and epoch % self.keep_every == 0:
            path = self.folder / f"epoch-{epoch:04}{SUFFIX}"
            save_checkpoint(path, self.kind, weights(), self._description, epoch=epoch, metrics=metrics)
        if time.monotonic() - self._bests_saved > SECONDS_BETWEEN_SAVES:
            self._save_waiting()
            self._summarize("running")
        if self._scalars is not None:
            self._scalars.add(epoch, figures, metrics or {}, seconds)
        self._logs.add({"epoch": epoch, **figures, **(metrics or {})}, seconds)

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
        self._summarize("running")
        self._saved = time.monotonic()

    @property
    def _description(self) -> TrainingDescription:
        return TrainingDescription.model_validate(self.about)

    def _is_better(self, name: str, score: float) -> bool:
        return name not in self.found or score > self.found[name].score

    def _save_waiting(self) -> None:
        for name, state in self._waiting.items():
            best = self.found[name]
            save_checkpoint(
                self.folder / best.checkpoint,
                self.kind,
                state,
                self._description,
                epoch=best.epoch,
                selected_by=name,
                score=best.score,
                metrics=best.metrics,
            )
        self._waiting.clear()
        self._bests_saved = time.monotonic()

    def _summarize(self, state: str) -> None:
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
    free = shutil.disk_usage(nearest_existing_parent(folder)).free
    if free < 2 * state:
        raise MachineError(
            f"{free / 2**20:,.0f} MB are free, and a run's two checkpoints take {2 * state / 2**20:,.0f} MB",
            where=folder,
            remedy="Free space, or choose another workspace",
        )


def _last_good(folder: Path) -> tuple[Path, TrainingState, Mapping[str, object]]:
    for name in (NEXT, LAST, PREVIOUS):
        if (folder / name).exists():
            try:
                return (folder / name, *load_state(folder / name))
            except DataError as error:
                logger.warning(f"{error.where}: {error.what}; the one before it is taken")
    raise DataError("has no good state to go on from", where=folder, remedy="Start anew, without --resume")


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run's folder and its checked summary, key by key as in `RunSummary`."""

    folder: Path
    summary: Mapping[str, Any]

    def checkpoint(self, metric: str | None = None) -> tuple[Path, float] | None:
        """The best checkpoint by `metric` (default: what the run was judged by) and its score, if there is one."""
        bests = self.summary["bests"]
        best = bests.get(metric, None) if metric else next(iter(bests.values()), None)
        return (self.folder / best["checkpoint"], float(best["score"])) if best else None


def find_runs(
    parent: Path, *, unfinished: bool = False, damaged: Callable[[DataError], None] | None = None
) -> list[StoredRun]:
    """The runs under `parent`, oldest first: those with a best checkpoint, or those `unfinished` that can go on.

    The error of a summary that is not a valid one goes to `damaged`, and is raised where there is no such function.
    """
    runs = []
    for path in sorted(parent.glob(f"*/{SUMMARY}")):
        try:
            run = StoredRun(path.parent, RunSummary.read(path).as_mapping())
        except DataError as error:
            if damaged is None:
                raise
            damaged(error)
            continue
        best = run.checkpoint()
        if unfinished:
            if run.summary["state"] != "finished" and any(
                (run.folder / name).exists() for name in (NEXT, LAST, PREVIOUS)
            ):
                runs.append(run)
        elif best is not None and best[0].exists():
            runs.append(run)
    return sorted(runs, key=lambda run: (run.summary["created"], run.folder))
