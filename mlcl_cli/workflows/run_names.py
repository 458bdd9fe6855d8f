"""Runs by their names, wherever a command takes a path."""

from pathlib import Path

from mlcl_cli.config import Profile
from mlcl_cli.errors import UsageError
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.listing import FOLDERS, find_run
from mlcl_cli.runs.summary import SUMMARY, RunSummary


def checkpoint_named(profile: Profile, text: str, kind: Kind | None = None) -> Path:
    """The file that `text` names, or else the best checkpoint of the run that it names, one of `kind` if given.

    A run is named as `mlcl runs` lists it, by the beginning of that name, by STAGE/name, or by its folder. A path with
    a suffix is returned even if the file is missing: its reader reports that. Raises UsageError where a name does not
    match exactly one run, or the run has no checkpoint yet, DataError where its summary is damaged.
    """
    path = _path(text)
    if path.is_file() or (path.suffix and not path.is_dir()):
        return path
    folder = _folder(profile, text, kind)
    summary = RunSummary.read(folder / SUMMARY)
    best = summary.bests.get(profile.protocol.bests[0], summary.best)
    if best is None:
        raise UsageError("has no validated epoch yet", where=folder, remedy="Wait for its first one")
    return folder / best.checkpoint


def run_named(profile: Profile, text: str, kind: Kind) -> Path:
    """The file `text`, or else the folder of the only run of `kind` that it names. Raises UsageError otherwise."""
    path = _path(text)
    return path if path.is_file() or path.suffix else _folder(profile, text, kind)


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser().resolve()
    except RuntimeError as error:  # ~name, where there is no such user
        raise UsageError(f"has no home folder ({error})", where=text) from error


def _folder(profile: Profile, text: str, kind: Kind | None) -> Path:
    folder = _path(text)
    if (folder / SUMMARY).is_file():  # a run's folder, in any workspace or outside of one
        return folder
    names_stage = text.startswith(tuple(f"{name}/" for name in FOLDERS.values()))
    return find_run(profile.workspace, text, None if names_stage else kind, or_file=True).folder
