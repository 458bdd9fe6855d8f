"""A run in training: its folder holds the resolved profile, logs, checkpoints, training states, and a summary."""

import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import NoReturn, Self

from filelock import FileLock, Timeout

from mlcl_cli.artifacts import Description, Tensors
from mlcl_cli.atomic_files import exclusive_lock, nearest_existing_parent, write_file
from mlcl_cli.errors import DataError, MachineError, UsageError, some
from mlcl_cli.formatting import size
from mlcl_cli.runs.checkpoints import SUFFIX, TrainingState, load_state, save_checkpoint, save_state
from mlcl_cli.runs.description import Kind, TrainingDescription
from mlcl_cli.runs.logs import Logs
from mlcl_cli.runs.scalars import LoggedRun, LoggerName, Scalars
from mlcl_cli.runs.summary import SUMMARY, BestCheckpoint, RunState, RunSummary, StateProgress
from mlcl_cli.signals import defer_signals
from mlcl_cli.suggestions import shown

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_SAVES = 30.0
LOCK = ".lock"
NAME = re.compile(r"[^\W_][\w-]{0,99}")  # no dot: a name with a suffix would be taken for a path
UNNAMED = re.compile(r".+-\d{8}-\d{6}(-\d+)?")  # the folder of a run without a name: data set, time, number
# The state that is being saved, the last one, and the one before it: one of them is intact at any moment.
NEXT, LAST, PREVIOUS = STATES = tuple(f"{name}{SUFFIX}" for name in ("next", "last", "previous"))


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run trains, and what it keeps.

    `command` started it, `description` is part of its summary and of every checkpoint. Each of `metrics` keeps a best
    checkpoint of its own; the first one decides. The state is saved every `minutes_between_states`, and every
    `epochs_between_states` if given; the weights of every `keep_every`th epoch stay; each of
    `loggers` gets the figures.
    """

    kind: Kind
    command: str
    epochs: int
    metrics: tuple[str, ...]
    description: TrainingDescription
    epochs_between_states: int | None = None
    minutes_between_states: float = 5.0
    keep_every: int | None = None
    loggers: tuple[LoggerName, ...] = ()


class Run:
    """A run in training in `folder`, new or stored (`created`). Raises MachineError where another process trains it.

    New best weights wait in memory. They, the table of metrics and the summary are written every
    `SECONDS_BETWEEN_SAVES` at most, so that an epoch of milliseconds does not wait for the disk.
    """

    def __init__(self, folder: Path, settings: RunSettings, created: str | None = None) -> None:
        self.folder, self.settings = folder, settings
        self.bests: dict[str, BestCheckpoint] = {}
        self._unsaved: dict[str, Callable[[], None]] = {}
        self._created = created or datetime.now(UTC).isoformat(timespec="microseconds")
        self._epoch = 0
        self._logs, self._scalars = Logs(folder), Scalars(settings.loggers)
        self._written = self._saved = time.monotonic()

        def refuse() -> NoReturn:
            raise MachineError("another process is training this run", where=folder, remedy="Wait for it, or stop it")

        self._lock = ExitStack()
        self._lock.enter_context(exclusive_lock(folder / LOCK, refuse))

    @classmethod
    def create(
        cls, parent: Path, dataset: str, profile: str, settings: RunSettings, *, name: str | None = None
    ) -> Self:
        """Make a folder under `parent`, called `name`, by default after the data set and the time, with the profile.

        Raises MachineError where that fails, UsageError where the name is taken.
        """
        folder = path = parent / (name or f"{dataset}-{datetime.now():%Y%m%d-%H%M%S}")
        for number in count(1):
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError as error:
                if name is not None:
                    raise _taken(folder) from error
                folder = path.with_name(f"{path.name}-{number}")
            except OSError as error:
                remedy = "Choose another workspace in the profile"
                raise MachineError(f"cannot be created ({error.strerror})", where=folder, remedy=remedy) from error
        write_file(folder / "profile.yaml", profile.encode())
        return cls(folder, settings)

    def resume(self, path: Path | None = None) -> TrainingState:
        """Return the state in `path`, or the newest intact one, and cut the logs to it.

        Nothing is changed before the state's description is validated. Raises DataError where there is no intact state,
        its description is invalid, or a file of the run is a symbolic link.
        """
        try:
            source, (state, about) = self._newest_intact() if path is None else (path, load_state(path))
            progress = StateProgress.of(about, source)
            self._require_own_files(source, progress.bests)
            if path is None and source.name == NEXT:  # a save was interrupted between its two renames
                source.replace(self.folder / LAST)
            for stale in self.folder.glob(".*.partial"):
                stale.unlink(missing_ok=True)
            self.bests.update(progress.bests)
            self._epoch = state.epoch - 1
            self._logs.rewind(progress.logs)
        except BaseException:
            self._lock.close()
            raise
        return state

    def __enter__(self) -> Self:
        self._write_summary(RunState.RUNNING)
        try:
            self._scalars.open(self._about(), self._epoch + 1)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        state = RunState.FINISHED if error is None else RunState.INTERRUPTED
        # Report the error that ended the run, not one raised while its files are written.
        suppressed = () if error is None else (Exception,)
        try:
            for step in (self._save_bests, self._logs.write_table, partial(self._write_summary, state)):
                with suppress(*suppressed), defer_signals():
                    step()
        finally:
            self._scalars.close(finished=state is RunState.FINISHED)
            self._lock.close()

    @property
    def best(self) -> BestCheckpoint:
        """The best checkpoint so far by the deciding metric. Raises KeyError before the first validation."""
        return self.bests[self.settings.metrics[0]]

    def record(
        self,
        epoch: int,
        figures: Mapping[str, float],
        metrics: Mapping[str, float] | None,
        weights: Callable[[], Tensors],
        seconds: float,
    ) -> None:
        """Log an epoch, which took `seconds` before its validation, and keep its weights if they are due.

        The log comes last: where this raises, the epoch counts as not recorded, and a resumed run records it again.
        """
        self._epoch, keep_every = epoch, self.settings.keep_every
        if metrics is not None:
            self._update_bests(epoch, metrics, weights)
        if keep_every and epoch % keep_every == 0:
            self._checkpoint_writer(f"epoch-{epoch:04}{SUFFIX}", weights())(epoch=epoch, metrics=metrics)
        if time.monotonic() - self._written > SECONDS_BETWEEN_SAVES:
            self._save_bests()
            self._write_progress()
        self._scalars.add(epoch, figures, metrics or {}, seconds)
        self._logs.add({"epoch": epoch, **figures, **(metrics or {})}, seconds)

    def save_if_due(self, state: Callable[[], TrainingState], epoch: int | None = None) -> None:
        """Save the state if the settings say so; `epoch` is given once it is done, and the last one is always saved."""
        settings, every = self.settings, self.settings.epochs_between_states
        due = time.monotonic() - self._saved > 60 * settings.minutes_between_states
        if due or epoch == settings.epochs or (epoch and every and epoch % every == 0):
            self.save(state())

    def save(self, state: TrainingState) -> None:
        """Save `state` with the best checkpoints and the summary so far, and keep the previous state."""
        self._save_bests()
        bests = {name: best.model_dump() for name, best in self.bests.items()}
        progress = {"kind": self.settings.kind, "bests": bests, "logs": self._logs.lengths()}
        next_, last = self.folder / NEXT, self.folder / LAST
        save_state(next_, state, self.settings.description.model_dump(exclude_unset=True) | progress)
        if last.exists():
            last.replace(self.folder / PREVIOUS)
        next_.replace(last)
        self._write_progress()
        self._saved = time.monotonic()

    def _about(self) -> LoggedRun:
        profile = self.settings.description.profile or {}
        return LoggedRun(self.folder, key=f"{self.folder.name}-{self._created}", settings=profile)

    def _update_bests(self, epoch: int, metrics: Mapping[str, float], weights: Callable[[], Tensors]) -> None:
        bests, (first, *_) = self.bests, self.settings.metrics
        better = [name for name in self.settings.metrics if name not in bests or metrics[name] > bests[name].score]
        state = {name: tensor.clone() for name, tensor in weights().items()} if better else {}
        for name in better:
            file = f"best{SUFFIX}" if name == first else f"best-{name}{SUFFIX}"
            bests[name] = BestCheckpoint(epoch=epoch, score=metrics[name], checkpoint=file, metrics=dict(metrics))
            save = self._checkpoint_writer(file, state)
            self._unsaved[name] = partial(save, epoch=epoch, selected_by=name, score=metrics[name], metrics=metrics)

    def _checkpoint_writer(self, file: str, weights: Tensors) -> "partial[None]":
        settings = self.settings
        return partial(save_checkpoint, self.folder / file, settings.kind, weights, settings.description)

    def _save_bests(self) -> None:
        for save in self._unsaved.values():
            save()
        self._unsaved.clear()

    def _write_progress(self) -> None:
        self._write_summary(RunState.RUNNING)
        self._logs.write_table()
        self._written = time.monotonic()

    def _write_summary(self, state: RunState) -> None:
        settings = self.settings
        RunSummary(
            **settings.description.model_dump(exclude_unset=True),
            kind=settings.kind,
            command=settings.command,
            created=self._created,
            state=state,
            epochs=settings.epochs,
            epoch=self._epoch,
            bests=self.bests,
        ).write(self.folder / SUMMARY)

    def _newest_intact(self) -> tuple[Path, tuple[TrainingState, Description]]:
        for path in filter(Path.exists, _states(self.folder)):
            try:
                return path, load_state(path)
            except DataError as error:
                logger.warning(f"{error.where}: {error.what}; trying the state saved before it")
        remedy = "Start a new run with --no-resume"
        raise DataError("no intact training state to resume from", where=self.folder, remedy=remedy)

    def _require_own_files(self, state: Path, bests: Mapping[str, BestCheckpoint]) -> None:
        """Raises DataError where a copied or hostile folder names other metrics, or links to files outside it."""
        metrics = self.settings.metrics
        if bests and set(bests) != set(metrics):
            what = f"has best checkpoints by {some(sorted(bests))}, expected {some(sorted(metrics))}"
            raise DataError(what, where=state, remedy="Resume from another state of the run with --run FILE")
        self._logs.require_regular_files()
        best_paths = [self.folder / best.checkpoint for best in bests.values()]
        for path in (self.folder / SUMMARY, *_states(self.folder), *best_paths):
            if path.is_symlink():
                remedy = "Replace it with the file itself, then use --resume"
                raise DataError("is a symbolic link", where=path, remedy=remedy)


def require_new_name(parent: Path, name: str) -> None:
    """Raise UsageError where `name` cannot be the name of a run's folder, or is taken under `parent`."""
    if not NAME.fullmatch(name):
        remedy = "Use up to 100 letters, digits, - and _, the first one a letter or a digit"
        raise UsageError(f"cannot be a run's name, {shown(name)}", where="--name", remedy=remedy)
    if os.path.lexists(parent / name):
        raise _taken(parent / name)


def _taken(folder: Path) -> UsageError:
    remedy = "Choose another --name; to continue an unfinished run of that name, add --resume"
    return UsageError("already exists", where=folder, remedy=remedy)


def has_state(folder: Path) -> bool:
    """Whether a run has a training state to resume from."""
    return any(path.exists() for path in _states(folder))


def is_locked(folder: Path) -> bool:
    """Whether a process trains the run; true as well where the file system cannot tell."""
    try:
        with FileLock(folder / LOCK).acquire(timeout=0):
            return False
    except (Timeout, OSError, NotImplementedError):
        return True


def require_room(folder: Path, state_bytes: int) -> None:
    """Raises MachineError where the disk has no room for two training states, which a run keeps."""
    free = shutil.disk_usage(nearest_existing_parent(folder)).free
    if free < 2 * state_bytes:
        raise MachineError(
            f"only {size(free)} free, but a run's two training states take {size(2 * state_bytes)}",
            where=folder,
            remedy="Free up space, or choose another workspace",
        )


def _states(folder: Path) -> list[Path]:
    return [folder / name for name in STATES]
