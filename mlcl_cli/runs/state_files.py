"""The training states in a run's folder, of which one is intact at any moment."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlcl_cli.atomic_files import nearest_existing_parent
from mlcl_cli.errors import DataError, MachineError
from mlcl_cli.formatting import size
from mlcl_cli.runs.checkpoints import SUFFIX
from mlcl_cli.runs.summary import StateProgress
from mlcl_cli.runs.training_state import TrainingState, load_state, save_state

logger = logging.getLogger(__name__)

NEXT, LAST, PREVIOUS = STATES = tuple(f"{name}{SUFFIX}" for name in ("next", "last", "previous"))


@dataclass(frozen=True)
class LoadedState:
    """A training state, the file that it was read from, and what it says about its run."""

    path: Path
    state: TrainingState
    progress: StateProgress


@dataclass(frozen=True, slots=True)
class StateFiles:
    """The last training state, the one before it, and while one is being saved the next."""

    folder: Path

    def exist(self) -> bool:
        """Whether there is a state to resume from."""
        return any((self.folder / name).exists() for name in STATES)

    def save(self, state: TrainingState, about: Mapping[str, object]) -> None:
        """Save `state` as the last one, and keeps the one before it."""
        following, last = self.folder / NEXT, self.folder / LAST
        save_state(following, state, about)
        if last.exists():
            last.replace(self.folder / PREVIOUS)
        following.replace(last)

    def load(self, path: Path | None = None) -> LoadedState:
        """Load the state in `path`, or the newest intact one; damaged ones are skipped with a warning.

        Raises DataError where there is no intact state, or its description is invalid.
        """
        path, (state, about) = self._newest_intact() if path is None else (path, load_state(path))
        return LoadedState(path, state, StateProgress.of(about, path))

    def complete_save(self) -> None:
        """Make the next state the last one, where a save was interrupted between its two renames."""
        (self.folder / NEXT).replace(self.folder / LAST)

    def _newest_intact(self) -> tuple[Path, tuple[TrainingState, Mapping[str, object]]]:
        for path in (self.folder / name for name in STATES):
            if path.exists():
                try:
                    return path, load_state(path)
                except DataError as error:
                    logger.warning(f"{error.where}: {error.what}; trying the state saved before it")
        remedy = "Start a new run with --no-resume"
        raise DataError("no intact training state to resume from", where=self.folder, remedy=remedy)


def require_room(folder: Path, state: int) -> None:
    """Raises MachineError where the disk has no room for two states of that many bytes: one is kept until two are."""
    free = shutil.disk_usage(nearest_existing_parent(folder)).free
    if free < 2 * state:
        raise MachineError(
            f"{size(free)} are free, and a run's two checkpoints take {size(2 * state)}",
            where=folder,
            remedy="Free space, or choose another workspace",
        )
