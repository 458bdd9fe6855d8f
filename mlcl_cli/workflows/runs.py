"""`mlcl runs`: what the workspace holds, one run after the other."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mlcl_cli.errors import UsageError, some
from mlcl_cli.inputs import parse_json
from mlcl_cli.profile import Profile
from mlcl_cli.training.runs import LOCK, SUMMARY

DAMAGED: dict[str, Any] = {"created": "", "dataset": None, "bests": {}, "epoch": 0, "epochs": 0}
STAGES = ("finetune", "combiner")


@dataclass(frozen=True, eq=False)
class ListedRun:
    """A run's summary, and what its folder tells; `state` is running, finished, interrupted or damaged."""

    folder: Path
    stage: str
    state: str
    bytes: int
    summary: dict[str, Any]

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
    """The one run of that name, or STAGE/name, whose beginning is enough; or of that folder.

    Raises UsageError where it names none or several.
    """
    names = {run: (run.folder.name, f"{run.stage}/{run.folder.name}") for run in list_runs(profile)}
    exact = [run for run, own in names.items() if name in own]
    exact = exact or [run for run in names if run.folder == Path(name).absolute()]
    found = exact or [run for run, own in names.items() if any(one.startswith(name) for one in own)]
    if len(found) != 1:
        told = "no run" if not found else f"{len(found)} runs: {some([names[run][1] for run in found])}"
        raise UsageError(f"{name!r} names {told}", where=profile.workspace, remedy="`mlcl runs` lists them")
    return found[0]


def remove_run(run: ListedRun) -> None:
    """Deletes a run's folder. Raises UsageError where it is being trained."""
    if run.state == "running":
        raise UsageError("is being trained", where=run.folder, remedy="Stop it first")
    shutil.rmtree(run.folder)


def _of_stage(parent: Path, stage: str) -> Iterator[ListedRun]:
    for path in sorted(parent.glob(f"*/{SUMMARY}")):
        folder = path.parent
        try:
            summary = parse_json(path.read_bytes())
            state, _known = (
                summary["state"],
                (summary["created"], summary["bests"], summary["epoch"], summary["epochs"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            summary, state = dict(DAMAGED), "damaged"
        if state == "running" and not _held(folder):
            state = "interrupted"  # its process died without a word
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        yield ListedRun(folder, stage, state, size, summary)


def _held(folder: Path) -> bool:
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError, NotImplementedError):  # where nothing can be locked, its own word counts
        return True
    lock.release()
    return False
