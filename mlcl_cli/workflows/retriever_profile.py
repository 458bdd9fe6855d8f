"""The profile that a retriever needs, from a workspace, a checkpoint, or a profile's file."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from mlcl_cli.config import Profile, load_profile, recorded_profile
from mlcl_cli.config.load import DEFAULT
from mlcl_cli.config.sections import Catalog
from mlcl_cli.errors import DataError, UsageError, some
from mlcl_cli.runs.checkpoints import Checkpoint, load_checkpoint
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.listing import FOLDERS, StoredRun, list_runs
from mlcl_cli.runs.summary import SUMMARY, RunState, RunSummary
from mlcl_cli.workflows.checkpoint_selection import ClipChoice

logger = logging.getLogger(__name__)

PROFILE_SUFFIXES = (".yaml", ".yml")
INSTEAD = "Name a profile (.yaml) instead"


class Source(NamedTuple):
    """A profile, and the combiner's file if that was named."""

    profile: Profile
    checkpoint: Path | None = None


def find_source(path: Path, *, catalog: str | None, store: str | None, device: str) -> Source:
    """What `path` names: a profile, a folder with mlcl.yaml, a workspace, a run's folder, or a combiner's file.

    A workspace's profile is that of its newest combiner, else of its newest fine-tuning run; the CLIP and the combiner
    are then chosen anew. `catalog` and `store` override the profile's catalog, `device` its device unless it is auto.
    Raises UsageError for a profile or an override that is not valid, DataError for anything else that is not.
    """
    source = _find(path)
    values = source.profile.catalog.model_dump() | ({} if catalog is None else {"name": catalog})
    try:
        chosen = Catalog.model_validate(values | ({} if store is None else {"store": store}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(first["msg"].removeprefix("Value error, "), where=f"catalog.{first['loc'][0]}") from error
    changes = {"catalog": chosen} | ({} if device == "auto" else {"device": device})
    return Source(source.profile.model_copy(update=changes), source.checkpoint)


def _find(path: Path) -> Source:
    path = path.expanduser().absolute()
    if path.suffix in PROFILE_SUFFIXES:
        return Source(load_profile(path))
    if (path / DEFAULT).is_file():
        return Source(load_profile(path / DEFAULT))
    if (path / SUMMARY).is_file():
        best = RunSummary.read(path / SUMMARY).best
        if best is None:
            raise DataError("has no validated epoch yet", where=path, remedy="Wait for its first one")
        path = path / best.checkpoint
    elif path.is_dir():
        return Source(_profile_of_workspace(path))
    return Source(_profile_of_checkpoint(load_checkpoint(path, Kind.COMBINER)), path)


def _profile_of_workspace(workspace: Path) -> Profile:
    runs = [run for run in list_runs(workspace) if run.problem is None and run.summary.bests]
    if not runs:
        remedy = f"{INSTEAD}, or a checkpoint"
        raise DataError("has no runs that say which CLIP and settings to use", where=workspace, remedy=remedy)
    run = max(enumerate(runs), key=lambda numbered: (_priority(numbered[1]), numbered[0]))[1]
    _report_others(run, runs)
    profile = load_profile(run.folder / "profile.yaml")
    return _here(profile, workspace, ClipChoice.of_run(run.summary.clip, _in(profile, workspace)).model)


def _priority(run: StoredRun) -> tuple[bool, bool]:
    return run.kind is Kind.COMBINER, run.state is RunState.FINISHED


def _report_others(run: StoredRun, runs: Sequence[StoredRun]) -> None:
    dataset = run.summary.dataset
    if others := sorted({other.summary.dataset for other in runs} - {dataset}):
        logger.info(f"{run.name} is on {dataset}; the workspace also has runs on {some(others)}")


def _profile_of_checkpoint(checkpoint: Checkpoint) -> Profile:
    about, path = checkpoint.about, checkpoint.path
    if about.profile is None or about.clip is None:
        remedy = f"{INSTEAD}, and this file as checkpoint"
        raise DataError("does not record the CLIP and the settings that it was trained with", where=path, remedy=remedy)
    profile = recorded_profile(about.profile, path)
    workspace = path.parents[2] if path.parent.parent.name == FOLDERS[Kind.COMBINER] else profile.workspace
    return _here(profile, workspace, ClipChoice.of_run(about.clip, _in(profile, workspace)).model)


def _in(profile: Profile, workspace: Path) -> Profile:
    return profile.model_copy(update={"workspace": workspace})


def _here(profile: Profile, workspace: Path, model: str | Path) -> Profile:
    """A recorded profile in the place where its workspace is now, with a CLIP to be chosen."""
    clip = profile.clip.model_copy(update={"model": model, "checkpoint": "auto"})
    return _in(profile, workspace).model_copy(update={"clip": clip, "device": "auto"})
