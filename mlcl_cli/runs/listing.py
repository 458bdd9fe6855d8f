"""The runs in a workspace: list, find and remove them."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import JsonValue

from mlcl_cli.errors import DataError, MachineError, UsageError, some
from mlcl_cli.formatting import counted
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.differences import differences
from mlcl_cli.runs.run import LOCK, UNNAMED, has_state, is_locked
from mlcl_cli.runs.summary import SUMMARY, RunState, RunSummary
from mlcl_cli.suggestions import nearest

FOLDERS: Mapping[Kind, str] = {Kind.CLIP: "finetune", Kind.COMBINER: "combiner"}


@dataclass(frozen=True, eq=False)
class StoredRun:
    """A run's folder, and its summary as it was when first read."""

    folder: Path
    kind: Kind

    @cached_property
    def summary(self) -> RunSummary:
        """The run's summary. Raises DataError where it is damaged."""
        return RunSummary.read(self.folder / SUMMARY)

    @cached_property
    def problem(self) -> DataError | None:
        """What is wrong with the summary of a damaged run."""
        try:
            self.summary  # noqa: B018
        except DataError as error:
            return error
        return None

    @property
    def stage(self) -> str:
        """The name of the stage's folder in the workspace."""
        return FOLDERS[self.kind]

    @property
    def name(self) -> str:
        """STAGE/FOLDER, as commands take it."""
        return f"{self.stage}/{self.folder.name}"

    @property
    def given_name(self) -> str | None:
        """The name that the user gave the run, if any."""
        return None if UNNAMED.fullmatch(self.folder.name) else self.folder.name

    @property
    def created(self) -> str:
        """When the run began, in ISO format; empty for a damaged run."""
        return "" if self.problem else self.summary.created

    @cached_property
    def state(self) -> RunState:
        """The state that the summary records; interrupted if it records a running run that no process trains."""
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
        return folder_size(self.folder)

    def as_json(self) -> dict[str, JsonValue]:
        """What `mlcl runs --json` prints about the run."""
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


def folder_size(folder: Path) -> int:
    """Bytes in a folder and its subfolders."""
    size = 0
    with suppress(OSError):  # files come and go during training
        for file in folder.rglob("*"):
            with suppress(OSError):
                size += file.lstat().st_size
    return size


def list_runs(workspace: Path, kind: Kind | None = None) -> list[StoredRun]:
    """The runs in `workspace`, of `kind` if given, damaged ones first, then oldest first."""
    kinds = Kind if kind is None else (kind,)
    runs = [StoredRun(path.parent, kind) for kind in kinds for path in (workspace / FOLDERS[kind]).glob(f"*/{SUMMARY}")]
    return sorted(runs, key=lambda run: (run.created, run.folder))


def differing(runs: Sequence[StoredRun]) -> dict[StoredRun, dict[str, str]]:
    """What differs between the runs of each stage and data set, in words; damaged runs are left out."""
    groups: dict[tuple[Kind, str], list[StoredRun]] = {}
    for run in runs:
        if run.problem is None:
            groups.setdefault((run.kind, run.summary.dataset), []).append(run)
    return {
        run: settings
        for group in groups.values()
        for run, settings in zip(group, differences([run.summary for run in group]), strict=True)
    }


def find_run(workspace: Path, name: str, kind: Kind | None = None, *, or_file: bool = False) -> StoredRun:
    """The only run, of `kind` if given, that `name` matches.

    Raises UsageError if it matches several, or none: then with the nearest name; `or_file` says that a file would do.
    """
    matches = matching_runs(workspace, name if kind is None else f"{FOLDERS[kind]}/{name}")
    if len(matches) == 1:
        return matches[0]
    noun = "run" if kind is None else f"{FOLDERS[kind]} run"
    if matches:
        what = f"{name!r} matches {counted(len(matches), noun)}: {some([run.name for run in matches])}"
        raise UsageError(what, where=workspace, remedy="Use more of the name")
    stage, _, start = name.rpartition("/")
    beginnings = {
        run.folder.name[: len(start)]: run.folder.name for run in list_runs(workspace, kind) if stage in ("", run.stage)
    }
    hint = f"; did you mean {beginnings[near]!r}?" if (near := nearest(start, beginnings)) else ""
    what = f"{name!r} is not a file and matches no {noun}" if or_file else f"{name!r} matches no {noun}"
    raise UsageError(f"{what}{hint}", where=workspace, remedy="`mlcl runs` lists all runs")


def matching_runs(workspace: Path, name: str) -> list[StoredRun]:
    """The runs whose name, STAGE/name or folder is `name`; if there are none, those whose name begins with it."""
    runs = list_runs(workspace)
    return (
        [run for run in runs if name in (run.folder.name, run.name)]
        or [run for run in runs if name and run.folder == Path(name).absolute()]
        or [run for run in runs if (start := name.removeprefix(f"{run.stage}/")) and run.folder.name.startswith(start)]
    )


def remove_run(workspace: Path, run: StoredRun) -> None:
    """Delete a run's folder while holding its lock.

    Raises UsageError where it is being trained or not removable, MachineError where it cannot be locked or deleted.
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
        remedy = "Delete the link with `rm`, and the folder that it points to yourself"
        raise UsageError("is a symbolic link, which mlcl does not follow to delete", where=run.folder, remedy=remedy)
    if run.folder.resolve().parent != (workspace / run.stage).resolve():
        raise UsageError("is not in the workspace", where=run.folder, remedy="Delete it yourself")


def dependents(workspace: Path, run: StoredRun) -> list[StoredRun]:
    """The other runs whose CLIP is a checkpoint of `run`."""
    folder = run.folder.resolve()
    return [
        other
        for other in list_runs(workspace)
        if other.folder != run.folder
        and not other.problem
        and (checkpoint := other.summary.clip.checkpoint)
        and (workspace / checkpoint).resolve().is_relative_to(folder)
    ]
