"""The runs in a workspace: list, find and remove them."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import JsonValue

from mlcl_cli.errors import DataError, MachineError, UsageError, some
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.run import LOCK, has_state, is_locked
from mlcl_cli.runs.summary import SUMMARY, RunState, RunSummary

FOLDERS: Mapping[Kind, str] = {Kind.CLIP: "finetune", Kind.COMBINER: "combiner"}


@dataclass(frozen=True, eq=False)
class StoredRun:
    """A run's folder, and its summary or the error that names what is wrong with that."""

    folder: Path
    kind: Kind
    content: RunSummary | DataError

    @classmethod
    def read(cls, folder: Path, kind: Kind) -> "StoredRun":
        """The run in `folder`, which has a `run.json`."""
        try:
            return cls(folder, kind, RunSummary.read(folder / SUMMARY))
        except DataError as error:
            return cls(folder, kind, error)

    @property
    def problem(self) -> DataError | None:
        """What is wrong with the summary of a damaged run."""
        return self.content if isinstance(self.content, DataError) else None

    @property
    def summary(self) -> RunSummary:
        """The run's summary. Raises DataError where it is damaged."""
        if isinstance(self.content, DataError):
            raise self.content
        return self.content

    @property
    def stage(self) -> str:
        """The name of the stage's folder in the workspace."""
        return FOLDERS[self.kind]

    @property
    def name(self) -> str:
        """STAGE/FOLDER, as commands take it."""
        return f"{self.stage}/{self.folder.name}"

    @property
    def created(self) -> str:
        """When the run began, in ISO format; empty for a damaged run."""
        return "" if self.problem else self.summary.created

    @cached_property
    def state(self) -> RunState:
        """The summary's state, or what has become of the run: a process that was killed leaves `running`."""
        state = RunState.DAMAGED if self.problem else self.summary.state
        return RunState.INTERRUPTED if state is RunState.RUNNING and not is_locked(self.folder) else state

    @property
    def resumable(self) -> bool:
        """Whether training has not finished, and has left a state."""
        unfinished = not self.problem and self.summary.state is not RunState.FINISHED
        return unfinished and has_state(self.folder)

    @property
    def size(self) -> int:
        """Bytes in the folder."""
        size = 0
        with suppress(OSError):  # files come and go during training
            for file in self.folder.rglob("*"):
                with suppress(OSError):
                    size += file.lstat().st_size
        return size

    def as_json(self) -> dict[str, JsonValue]:
        """What `mlcl runs` shows of it."""
        summary = None if self.problem else self.summary
        best = summary.best if summary else None
        return {
            "name": self.folder.name,
            "stage": self.stage,
            "dataset": summary.dataset if summary else None,
            "state": self.state,
            "epoch": summary.epoch if summary else 0,
            "epochs": summary.epochs if summary else 0,
            "metric": next(iter(summary.bests), None) if summary else None,
            "score": best.score if best else None,
            "created": self.created,
            "bytes": self.size,
        }


def list_runs(workspace: Path, *kinds: Kind) -> list[StoredRun]:
    """The runs in `workspace`, of `kinds` if given, damaged ones first, then oldest first."""
    runs = [
        StoredRun.read(path.parent, kind)
        for kind in kinds or Kind
        for path in (workspace / FOLDERS[kind]).glob(f"*/{SUMMARY}")
    ]
    return sorted(runs, key=lambda run: (run.created, run.folder))


def find_run(workspace: Path, name: str) -> StoredRun:
    """The only run with that name, STAGE/name, folder, or beginning of a name.

    Raises UsageError where it names none or several.
    """
    runs = list_runs(workspace)
    matches = (
        [run for run in runs if name in (run.folder.name, run.name)]
        or [run for run in runs if name and run.folder == Path(name).absolute()]
        or [run for run in runs if _begins(run, name)]
    )
    if len(matches) != 1:
        names = f"{len(matches)} runs: {some([run.name for run in matches])}" if matches else "no run"
        raise UsageError(f"{name!r} names {names}", where=workspace, remedy="`mlcl runs` lists them")
    return matches[0]


def best_checkpoint(folder: Path, metric: str | None = None) -> Path:
    """The best checkpoint in a run's folder by `metric`, or by the deciding metric where there is none by that.

    Raises DataError where the run's summary is damaged, UsageError where no epoch has been validated.
    """
    summary = RunSummary.read(folder / SUMMARY)
    best = summary.bests.get(metric or "") or summary.best
    if best is None:
        raise UsageError("has no validated epoch yet", where=folder, remedy="Wait for its first one")
    return folder / best.checkpoint


def remove_run(workspace: Path, run: StoredRun) -> None:
    """Delete a run's folder while holding its lock.

    Raises UsageError where it is being trained or is not a folder of the workspace itself, MachineError where it cannot
    be locked or deleted.
    """
    require_removable(workspace, run)
    try:
        with FileLock(run.folder / LOCK).acquire(timeout=0):
            shutil.rmtree(run.folder)
    except Timeout as error:
        raise UsageError("is being trained", where=run.folder, remedy="Stop it first") from error
    except OSError as error:
        remedy = "Check its permissions, then run `mlcl runs rm` again"
        raise MachineError(f"cannot be deleted ({error.strerror})", where=run.folder, remedy=remedy) from error


def require_removable(workspace: Path, run: StoredRun) -> None:
    """Raises UsageError where a run's folder is a symbolic link or lies outside the workspace."""
    if run.folder.is_symlink():
        raise UsageError(
            "is a symbolic link, and mlcl deletes no folder through one",
            where=run.folder,
            remedy="Delete the link with `rm`, and the folder that it names yourself",
        )
    if run.folder.resolve().parent != (workspace / run.stage).resolve():
        raise UsageError("is not in the workspace", where=run.folder, remedy="Delete it yourself")


def dependents(workspace: Path, run: StoredRun) -> list[StoredRun]:
    """The other runs whose CLIP is a checkpoint of `run`."""
    folder = run.folder.resolve()
    return [
        other
        for other in list_runs(workspace)
        if other.folder != run.folder
        and other.problem is None
        and (checkpoint := other.summary.clip.checkpoint) is not None
        and (workspace / checkpoint).resolve().is_relative_to(folder)
    ]


def _begins(run: StoredRun, name: str) -> bool:
    """Whether the run's name begins so; an empty beginning, with or without a stage, names nothing."""
    beginning = name.removeprefix(f"{run.stage}/")
    return bool(beginning) and run.folder.name.startswith(beginning)
