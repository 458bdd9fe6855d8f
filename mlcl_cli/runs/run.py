"""A run in training: its folder holds the resolved profile, logs, checkpoints, states, and a summary."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Self

from torch import Tensor

from mlcl_cli.atomic_files import write_file
from mlcl_cli.errors import DataError, MachineError, some
from mlcl_cli.runs.best_checkpoints import BestCheckpoints
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.lock import hold_lock
from mlcl_cli.runs.logs import Logs, Scalars
from mlcl_cli.runs.state_files import NEXT, STATES, LoadedState, StateFiles
from mlcl_cli.runs.summary import SUMMARY, BestCheckpoint, RunDescription, RunState, RunSummary
from mlcl_cli.runs.training_state import TrainingState
from mlcl_cli.signals import defer_signals

SECONDS_BETWEEN_SAVES = 30.0


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run trains, and what it keeps.

    `command` started it, `description` is part of its summary and of every checkpoint. Each of `metrics` keeps a best
    checkpoint of its own; the first one decides. The state is saved every `minutes_between_states`, and every
    `epochs_between_states` if given; the weights of every `keep_every`th epoch stay.
    """

    kind: Kind
    command: str
    epochs: int
    metrics: tuple[str, ...]
    description: RunDescription
    epochs_between_states: int | None = None
    minutes_between_states: float = 5.0
    keep_every: int | None = None
    tensorboard: bool = False


class Run:
    """A run in training in `folder`, new or stored (`created`). Raises MachineError where another process trains it.

    New best checkpoints, the table of metrics and the summary are written every `SECONDS_BETWEEN_SAVES` at most, so
    that an epoch of milliseconds does not wait for the disk.
    """

    def __init__(self, folder: Path, settings: RunSettings, created: str | None = None) -> None:
        self.folder, self.settings = folder, settings
        self._created = created or datetime.now(UTC).isoformat(timespec="microseconds")
        self._epoch = 0
        self._scalars: Scalars | None = None
        self._written = self._saved = time.monotonic()
        self._checkpoints = BestCheckpoints(folder, settings.kind, settings.metrics, settings.description)
        self._logs, self._states = Logs(folder), StateFiles(folder)
        self._lock = ExitStack()
        self._lock.enter_context(hold_lock(folder))

    @classmethod
    def create(cls, parent: Path, name: str, profile: str, settings: RunSettings) -> Self:
        """Make a folder under `parent`, named after `name` and the time, with the resolved profile.

        Raises MachineError where it cannot be made.
        """
        folder = path = parent / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
        for number in count(1):
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:
                folder = path.with_name(f"{path.name}-{number}")
            except OSError as error:
                remedy = "Choose another workspace in the profile"
                raise MachineError(f"cannot be made ({error.strerror})", where=folder, remedy=remedy) from error
        write_file(folder / "profile.yaml", profile.encode())
        return cls(folder, settings)

    def resume(self, state: Path | None = None) -> TrainingState:
        """Resume from the file `state`, or from the last intact state, which it returns; cuts the logs to that.

        Nothing is changed before the state's description is validated. Raises DataError where there is no intact state
        or a file of the run is a symbolic link.
        """
        try:
            loaded = self._states.load(state)
            self._require_own_files(loaded)
            if state is None and loaded.path.name == NEXT:
                self._states.complete_save()
            for stale in self.folder.glob(".*.partial"):
                stale.unlink(missing_ok=True)
            self.bests.update(loaded.progress.bests)
            self._epoch = loaded.state.epoch - 1
            self._logs.rewind(loaded.progress.logs)
        except BaseException:
            self._lock.close()
            raise
        return loaded.state

    def __enter__(self) -> Self:
        self._write_summary(RunState.RUNNING)
        if self.settings.tensorboard:
            self._scalars = Scalars.open(self.folder, self._epoch + 1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        state = RunState.FINISHED if kind is None else RunState.INTERRUPTED
        # What ended the run is what its user must see, not that this fails, too.
        suppressed = () if kind is None else (Exception,)
        try:
            for step in (self._checkpoints.save, self._logs.write_table, partial(self._write_summary, state)):
                with suppress(*suppressed), defer_signals():
                    step()
        finally:
            if self._scalars is not None:
                self._scalars.close()
            self._lock.close()

    @property
    def bests(self) -> dict[str, BestCheckpoint]:
        """The best checkpoint so far by metric."""
        return self._checkpoints.bests

    @property
    def best(self) -> BestCheckpoint:
        """The best checkpoint so far by the deciding metric. Raises KeyError before the first validation."""
        return self.bests[self.settings.metrics[0]]

    def record(
        self,
        epoch: int,
        figures: Mapping[str, float],
        metrics: Mapping[str, float] | None,
        weights: Callable[[], Mapping[str, Tensor]],
        seconds: float,
    ) -> None:
        """Keep an epoch's weights where they are due, and logs it; it took `seconds` before its validation.

        The log comes last: where this raises, the epoch counts as not recorded, and a resumed run records it again.
        """
        self._epoch, keep_every = epoch, self.settings.keep_every
        if metrics is not None:
            self._checkpoints.update(epoch, metrics, weights)
        if keep_every is not None and epoch % keep_every == 0:
            self._checkpoints.keep_epoch(epoch, metrics, weights)
        if time.monotonic() - self._written > SECONDS_BETWEEN_SAVES:
            self._checkpoints.save()
            self._write_progress()
        if self._scalars is not None:
            self._scalars.add(epoch, figures, metrics or {}, seconds)
        self._logs.add({"epoch": epoch, **figures, **(metrics or {})}, seconds)

    def save_if_due(self, state: Callable[[], TrainingState], epoch: int | None = None) -> None:
        """Save the state where the settings say so, or the last `epoch` is done."""
        settings = self.settings
        due = time.monotonic() - self._saved > 60 * settings.minutes_between_states
        if epoch is not None:
            every = settings.epochs_between_states
            due = due or epoch == settings.epochs or (every is not None and epoch % every == 0)
        if due:
            self.save(state())

    def save(self, state: TrainingState) -> None:
        """Save `state` and all that belongs to it."""
        self._checkpoints.save()
        bests = {name: best.model_dump() for name, best in self.bests.items()}
        progress = {"kind": self.settings.kind, "bests": bests, "logs": self._logs.lengths()}
        self._states.save(state, self.settings.description.model_dump(exclude_unset=True) | progress)
        self._write_progress()
        self._saved = time.monotonic()

    def _write_progress(self) -> None:
        self._write_summary(RunState.RUNNING)
        self._logs.write_table()
        self._written = time.monotonic()

    def _write_summary(self, state: RunState) -> None:
        settings = self.settings
        progress = {
            "kind": settings.kind,
            "command": settings.command,
            "created": self._created,
            "state": state,
            "epochs": settings.epochs,
            "epoch": self._epoch,
            "bests": self.bests,
        }
        summary = RunSummary.model_validate(settings.description.model_dump(exclude_unset=True) | progress)
        summary.write(self.folder / SUMMARY)

    def _require_own_files(self, loaded: LoadedState) -> None:
        """A hostile or copied folder may name other metrics, or link to files that are not the run's."""
        bests, metrics = loaded.progress.bests, self.settings.metrics
        if bests and set(bests) != set(metrics):
            what = f"has bests by {some(sorted(bests))}, expected {some(sorted(metrics))}"
            raise DataError(what, where=loaded.path, remedy="Resume from another state of the run with --run FILE")
        self._logs.require_own()
        paths = [self.folder / name for name in (SUMMARY, *STATES, *(best.checkpoint for best in bests.values()))]
        if links := [path for path in paths if path.is_symlink()]:
            raise DataError("is a symbolic link", where=links[0], remedy="Replace it by the file itself, then --resume")
