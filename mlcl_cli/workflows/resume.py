"""Which run to resume, and whether its settings and data are still the same."""

import hashlib
import json
import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from pydantic import JsonValue

from mlcl_cli.atomic_files import to_json, write_file
from mlcl_cli.config import Profile
from mlcl_cli.config.schema import DATA_KEYS
from mlcl_cli.data.records import Split
from mlcl_cli.errors import DataError, UsageError, some
from mlcl_cli.formatting import counted
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.differences import flattened
from mlcl_cli.runs.listing import FOLDERS, StoredRun, list_runs
from mlcl_cli.runs.summary import SUMMARY, RunSummary
from mlcl_cli.signals import defer_signals
from mlcl_cli.workflows.content_digests import combined_digest, read_note

logger = logging.getLogger(__name__)

# The keys of a profile that may change when a run is resumed: where files are, how the machine is used, and what
# training does not read. What `clip` and `evaluate` select is compared by the CLIP's fingerprint and the data's digest.
MAY_CHANGE = {
    "workspace", "workers", "device", "resume", "checkpoints", "tensorboard", "loggers", "clip", "evaluate", "catalog"
}  # fmt: skip
# The section of a profile that training this kind does not read.
UNUSED_SECTION = {Kind.CLIP: "combiner", Kind.COMBINER: "finetune"}
CONTENTS = "images.json"


class Resume(Enum):
    """Which run to resume, unless one is named."""

    NONE = auto()
    NEWEST = auto()  # the newest unfinished one; an error if there is none
    NEWEST_IF_ANY = auto()


@dataclass(frozen=True, slots=True)
class ResumableRun:
    """A run to resume, and its state file if one was named."""

    stored: StoredRun
    state: Path | None = None


def find_resumable(
    profile: Profile, kind: Kind, resume: Resume | Path, encoder: str | None = None, name: str | None = None
) -> ResumableRun | None:
    """The run of `kind` (of `encoder` and with that `name`, if given) to resume, or None to start a new one.

    A path is a run's folder or one of its state files. Damaged runs are skipped with a warning. Raises DataError where
    a named run is damaged or not resumable, or where there are only damaged ones, UsageError where there is none to
    resume.
    """
    if isinstance(resume, Path):
        return _run_at(resume, kind)
    if resume is Resume.NONE:
        return None
    optional = resume is Resume.NEWEST_IF_ANY
    runs = list_runs(profile.workspace, kind)
    damaged = [run.problem for run in runs if run.problem is not None]
    unfinished = [run for run in runs if run.resumable]
    for problem in damaged if unfinished or optional else []:
        logger.warning(f"Skipped a damaged run: {problem}")
    for run in reversed(unfinished):
        named = name in (None, run.folder.name)
        if named and run.summary.dataset == profile.dataset and encoder in (None, run.summary.encoder):
            return ResumableRun(run)
    if optional:
        return None
    if damaged and not unfinished:
        raise damaged[0]
    what = f"no unfinished run to resume ({', '.join(filter(None, (profile.dataset, encoder, name)))})"
    raise UsageError(what, where=profile.workspace / FOLDERS[kind], remedy="Leave out --resume to start a new run")


def identity(
    profile: Profile, kind: Kind, splits: Sequence[Split], clip: str, image_digests: Mapping[str, str]
) -> dict[str, JsonValue]:
    """What may not change when a run is resumed: its settings, its data, its CLIP's fingerprint.

    `clip` is a fingerprint; `image_digests` maps each image of the data to a digest of its file's content.
    """
    with defer_signals():  # pydantic turns an interruption within it into an error of its own
        settings = profile.model_dump(mode="json", exclude={*MAY_CHANGE, *DATA_KEYS, UNUSED_SECTION[kind]})
    data: dict[str, JsonValue] = {split.name: _digest(split) for split in splits}
    return {"profile": settings, "data": data, "images": combined_digest(image_digests), "clip": clip}


def save_contents(folder: Path, image_digests: Mapping[str, str]) -> None:
    """Save the digests in the run's folder, so that a resume can name the images that have changed."""
    write_file(folder / CONTENTS, to_json(dict(image_digests)))


def require_same(
    stored: StoredRun, protocol: str, now: Mapping[str, JsonValue], image_digests: Mapping[str, str]
) -> None:
    """Raises UsageError where a stored run's protocol or identity differs from `now`, with what differs.

    Changed images are named. A run that recorded no contents is compared by its files' sizes alone.
    """
    changes = _changes(stored.summary, protocol, now)
    if not changes:
        return
    remedy = "Restore them, or start a new run with --no-resume"
    recorded = read_note(stored.folder / CONTENTS, dict[str, str]) or image_digests
    changed = [
        name for name in dict.fromkeys([*recorded, *image_digests]) if recorded.get(name) != image_digests.get(name)
    ]
    if "images" in changes and changed:
        what = f"{counted(len(changed), 'image')} changed or disappeared since the run began: {some(changed)}"
    else:
        what = "settings or data differ from when the run began: "
        what += "; ".join(f"{key} was {old}, is {new}" for key, (old, new) in changes.items())
        if changes.keys() <= flattened((stored.summary.identity or {}).get("profile") or {}).keys():
            old = " ".join(f"--set {shlex.quote(f'{key}={_as_override(was)}')}" for key, (was, _) in changes.items())
            remedy = f"Pass {old}, or start a new run with --no-resume"
    raise UsageError(f"cannot resume: {what}", where=stored.folder, remedy=remedy)


def _as_override(value: object) -> str:
    """A setting as `--set` takes it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def runs_of(
    workspace: Path, kind: Kind, encoder: str | None, protocol: str, now: Mapping[str, JsonValue]
) -> list[StoredRun]:
    """The runs of `kind` (and `encoder`) in the workspace with the identity `now`, oldest first."""
    return [
        run
        for run in list_runs(workspace, kind)
        if run.problem is None and run.summary.encoder == encoder and not _changes(run.summary, protocol, now)
    ]


def _changes(then: RunSummary, protocol: str, now: Mapping[str, JsonValue]) -> dict[str, tuple[object, object]]:
    """What differs from a stored run, by key: what it was, and what it is."""
    stored = then.identity or {}
    before, after = flattened(stored), flattened({key: now[key] for key in now if key != "images" or key in stored})
    pairs = {key: (before.get(key, "nothing"), after.get(key, "nothing")) for key in before | after}
    pairs["protocol"] = then.protocol, protocol
    return {key: (old, new) for key, (old, new) in pairs.items() if old != new}


def _run_at(path: Path, kind: Kind) -> ResumableRun:
    folder, state = (path, None) if path.is_dir() else (path.parent, path)
    if os.path.lexists(folder / SUMMARY):
        run = StoredRun(folder, kind)
        if run.problem is not None:
            raise run.problem
        if run.resumable and (state is None or state.exists()):
            return ResumableRun(run, state)
    what = "no unfinished run to resume: it has finished, never started, or has no state"
    raise DataError(what, where=path, remedy="Name an unfinished run, its folder, or one of its state files")


def _digest(split: Split) -> str:
    """A digest of the annotations and of the sizes of the image files."""
    digest = hashlib.sha256(repr((split.dataset, split.name, split.sets)).encode())
    if several := [triplet.other_targets for triplet in split.triplets if triplet.other_targets]:
        digest.update(repr(several).encode())
    for name in split.images():
        path = split.paths[name]
        digest.update(f"{name}:{path.stat().st_size if path.is_file() else 'missing'}".encode())
    return digest.hexdigest()[:16]
