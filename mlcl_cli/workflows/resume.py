"""Which run to take up again, and whether it still is the same run."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcl_cli.atomic_files import to_json, write_file
from mlcl_cli.config import Profile
from mlcl_cli.config.schema import DATA_SECTIONS
from mlcl_cli.data.records import Split
from mlcl_cli.errors import DataError, UsageError, some
from mlcl_cli.runs.run import StoredRun, find_runs
from mlcl_cli.runs.summary import SUMMARY
from mlcl_cli.workflows.checkpoint_selection import ClipChoice
from mlcl_cli.workflows.content_digests import combined, read_note

logger = logging.getLogger(__name__)

# What may differ between the two parts of a run: where things lie, and how the machine is used.
MACHINE = ("workspace", "workers", "device", "resume", "checkpoints", "tensorboard", "clip", "evaluate")
FREE = (*MACHINE, *DATA_SECTIONS)
SECTIONS = {"finetune": "combiner", "combiner": "finetune"}  # the section that a stage does not read
ABSENT = "nothing"
CONTENTS = "images.json"


@dataclass(frozen=True, slots=True)
class Resume:
    """Whether to go on: with the newest unfinished run (`wanted`; where there is one, if `optional`), or a named one.

    `run` is a run's folder or one of its state files.
    """

    wanted: bool = False
    optional: bool = False
    run: Path | None = None


NO_RESUME = Resume()


@dataclass(frozen=True, slots=True)
class ResumableRun:
    """A run to take up, and its state file if one was named."""

    stored: StoredRun
    state: Path | None

    def clip(self, workspace: Path) -> ClipChoice:
        """The CLIP that the run began with, whatever has been tuned since."""
        return ClipChoice.described(self.stored.summary["clip"], workspace, "the run's")


def find_resumable(profile: Profile, stage: str, resume: Resume, also: Mapping[str, Any]) -> ResumableRun | None:
    """The run of `stage` to go on with, or None to start anew; `also` are further entries of its summary.

    Runs whose summary is damaged are skipped with a warning. Raises DataError where a named one is damaged or not
    there, or where there are only damaged ones, UsageError where there is none to go on with.
    """
    damaged: list[DataError] = []
    if resume.run is not None:
        folder = resume.run if resume.run.is_dir() else resume.run.parent
        state = None if resume.run.is_dir() else resume.run
        found = find_runs(folder.parent, unfinished=True, damaged=damaged.append)
        if own := [error for error in damaged if error.where == folder / SUMMARY]:
            raise own[0]
        stored = [run for run in found if run.folder == folder]
        if not stored or (state is not None and not state.exists()):
            what = "there is no unfinished run: it is finished, was never begun, or has no state"
            raise DataError(what, where=resume.run, remedy="Give an unfinished run's name or folder, or a state in it")
        return ResumableRun(stored[0], state)
    if not resume.wanted:
        return None
    wanted = {"dataset": profile.dataset, **also}
    found = find_runs(profile.workspace / stage, unfinished=True, damaged=damaged.append)
    for error in damaged if found or resume.optional else []:
        logger.warning(f"skipped a run: {error}")
    for run in reversed(found):
        if all(run.summary.get(key) == value for key, value in wanted.items()):
            return ResumableRun(run, None)
    if resume.optional:
        return None
    if damaged and not found:
        raise damaged[0]
    what = ", ".join(str(value) for value in wanted.values())
    raise UsageError(
        f"there is no unfinished run ({what})", where=profile.workspace / stage, remedy="Leave --resume out"
    )


def identity(
    profile: Profile, stage: str, splits: Sequence[Split], clip: str, images: Mapping[str, str]
) -> dict[str, Any]:
    """What may not change between the parts of a run: its settings, its data, its CLIP's fingerprint.

    `images` maps each image of the data to a digest of its file's content.
    """
    settings = profile.model_dump(mode="json", exclude={*FREE, SECTIONS[stage]})
    data = {split.name: _digest(split) for split in splits}
    return {"profile": settings, "data": data, "images": combined(images), "clip": clip}


def save_contents(run: Path, images: Mapping[str, str]) -> None:
    """Keeps `images`, as in `identity`, in the run's folder: a resume names those that have changed."""
    write_file(run / CONTENTS, to_json(dict(images)))


def require_same(stored: StoredRun, now: Mapping[str, Any], images: Mapping[str, str]) -> None:
    """Raises UsageError where a stored run's identity differs from the present one; says what differs.

    Changed images are named. A run that recorded no contents is compared by its files' sizes alone.
    """
    then: Mapping[str, Any] = stored.summary.get("identity", {})
    before, after = _flat(then), _flat({key: now[key] for key in now if key != "images" or key in then})
    changed = [key for key in before | after if before.get(key, ABSENT) != after.get(key, ABSENT)]
    if "images" in changed and (differing := _changed_images(stored.folder / CONTENTS, images)):
        count = "1 image" if len(differing) == 1 else f"{len(differing):,} images"
        raise UsageError(
            f"cannot resume: {count} changed or disappeared since the run began: {some(differing)}",
            where=stored.folder,
            remedy="Restore the files, or start a new run with --no-resume",
        )
    if changed:
        told = "; ".join(f"{key} was {before.get(key, ABSENT)}, is {after.get(key, ABSENT)}" for key in changed)
        raise UsageError(
            f"cannot resume: settings or data differ from when the run began: {told}",
            where=stored.folder,
            remedy="Restore them, or start a new run with --no-resume",
        )


def _changed_images(path: Path, images: Mapping[str, str]) -> list[str]:
    before = read_note(path, dict[str, str])
    if before is None:
        return []
    return [name for name in [*before, *(images.keys() - before)] if before.get(name) != images.get(name)]


def _digest(split: Split) -> str:
    """Stands for the annotations, and for the sizes of the image files."""
    digest = hashlib.sha256(repr((split.dataset, split.name, split.sets)).encode())
    for name in split.images():
        path = split.paths[name]
        digest.update(f"{name}:{path.stat().st_size if path.is_file() else 'missing'}".encode())
    return digest.hexdigest()[:16]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, part in value.items():
        flat |= _flat(part, f"{name}.{key}" if name and name != "profile" else str(key))
    return flat
