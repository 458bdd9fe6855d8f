"""`mlcl runs`: what the workspace holds, one run after the other."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mlcl_cli.config import Profile
from mlcl_cli.errors import DataError, MachineError, UsageError, some
from mlcl_cli.runs.run import LOCK
from mlcl_cli.runs.summary import SUMMARY, RunSummary

DAMAGED: Mapping[str, Any] = {"created": "", "dataset": None, "bests": {}, "epoch": 0, "epochs": 0}
STAGES = ("finetune", "combiner")


@dataclass(frozen=True, eq=False)
class ListedRun:
    """A run's summary, and what its folder tells; `state` is running, finished, interrupted or damaged.

    `problem` says what is wrong with the summary of a damaged run; its `summary` is empty then.
    """

    folder: Path
    stage: str
    state: str
    bytes: int
    summary: Mapping[str, Any]
    problem: DataError | None = None

    def as_json(self) -> dict[str, Any]:
        """What a table shows of it."""
        bests = self.summary["bests"]
        metric = next(iter(bests), None)
        return {
            "name": self.folder.name,
            "stage": self.stage,
            "dataset": self.summary.get("dataset"),
            "state": self.state,
            "epoch": self.summary["epoch"],
            "epochs": self.summary["epochs"],
            "metric": metric,
            "score": bests[metric]["score"] if metric else None,
            "created": self.summary["created"],
            "bytes": self.bytes,
        }


def list_runs(profile: Profile) -> list[ListedRun]:
    """Every run of the workspace, oldest first; one whose summary cannot be read is damaged, and comes first."""
    found = [run for stage in STAGES for run in _of_stage(profile.workspace / stage, stage)]
    return sorted(found, key=lambda run: (run.summary["created"], run.folder))


def find_run(profile: Profile, name: str) -> ListedRun:
    """The one run of that name, or STAGE/name, or whose name begins so; or of that folder.

    Raises UsageError where it names none or several.
    """
    runs = list_runs(profile)
    exact = [run for run in runs if name in (run.folder.name, f"{run.stage}/{run.folder.name}")]
    exact = exact or [run for run in runs if name and run.folder == Path(name).absolute()]
    found = exact or [run for run in runs if _begins(run, name)]
    if len(found) != 1:
        several = some([f"{run.stage}/{run.folder.name}" for run in found])
        told = f"{len(found)} runs: {several}" if found else "no run"
        raise UsageError(f"{name!r} names {told}", where=profile.workspace, remedy="`mlcl runs` lists them")
    return found[0]


def remove_run(profile: Profile, run: ListedRun) -> None:
    """Deletes a run's folder, and holds its lock meanwhile.

    Raises UsageError where it is being trained or is not a folder of the workspace itself, MachineError where it cannot
    be locked or deleted.
    """
    require_removable(profile, run)
    try:
        with FileLock(run.folder / LOCK).acquire(timeout=0):
            shutil.rmtree(run.folder)
    except Timeout as error:
        raise UsageError("is being trained", where=run.folder, remedy="Stop it first") from error
    except OSError as error:
        remedy = "Check its permissions, then run `mlcl runs rm` again"
        raise MachineError(f"cannot be deleted ({error.strerror})", where=run.folder, remedy=remedy) from error


def require_removable(profile: Profile, run: ListedRun) -> None:
    """Raises UsageError where a run's folder is a symbolic link or lies elsewhere than in the workspace."""
    if run.folder.is_symlink():
        raise UsageError(
            "is a symbolic link, and mlcl deletes no folder through one",
            where=run.folder,
            remedy="Delete the link with `rm`, and the folder that it names yourself",
        )
    if run.folder.resolve().parent != (profile.workspace / run.stage).resolve():
        raise UsageError("is not in the workspace", where=run.folder, remedy="Delete it yourself")


def dependents(profile: Profile, run: ListedRun) -> list[ListedRun]:
    """The other runs whose CLIP is a checkpoint of `run`."""
    folder = run.folder.resolve()
    others = [other for other in list_runs(profile) if other.folder != run.folder and other.problem is None]
    starts = [(other, other.summary["clip"]["checkpoint"]) for other in others]
    return [
        other
        for other, checkpoint in starts
        if checkpoint is not None and (profile.workspace / checkpoint).resolve().is_relative_to(folder)
    ]


def _begins(run: ListedRun, name: str) -> bool:
    """Whether the run's name begins so; an empty beginning, with or without a stage, names nothing."""
    beginning = name.removeprefix(f"{run.stage}/")
    return bool(beginning) and run.folder.name.startswith(beginning)


def run_at(folder: Path, stage: str | None = None) -> ListedRun:
    """The run in `folder`, which has a summary; `stage` is the name of the folder above if not given."""
    summary, state, problem = DAMAGED, "damaged", None
    try:
        summary = RunSummary.read(folder / SUMMARY).as_mapping()
        state = summary["state"]
    except DataError as error:
        problem = error
    if state == "running" and not _held(folder):
        state = "interrupted"  # its process died without a word
    return ListedRun(folder, stage or folder.parent.name, state, _bytes(folder), summary, problem)


def _of_stage(parent: Path, stage: str) -> Iterator[ListedRun]:
    for path in sorted(parent.glob(f"*/{SUMMARY}")):
        yield run_at(path.parent, stage)


def _bytes(folder: Path) -> int:
    size = 0
    with suppress(OSError):  # files come and go while a run is trained
        for file in folder.rglob("*"):
            with suppress(OSError):
                size += file.lstat().st_size
    return size


def _held(folder: Path) -> bool:
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError, NotImplementedError):  # where nothing can be locked, its own word counts
        return True
    lock.release()
    return False
