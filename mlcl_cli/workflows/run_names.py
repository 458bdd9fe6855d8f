"""Runs by their names, wherever a command takes a path."""

from pathlib import Path

from mlcl_cli.config import Profile
from mlcl_cli.data.datasets import protocol_of
from mlcl_cli.errors import UsageError
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.listing import FOLDERS, find_run
from mlcl_cli.runs.summary import SUMMARY, RunSummary


def checkpoint_named(profile: Profile, text: str, kind: Kind | None = None) -> Path:
    """The file that `text` names, or else the best checkpoint of the run that it names, one of `kind` if given.

    A name is a run's as `mlcl runs` lists it, its beginning, STAGE/name, or its folder. A path with a suffix is
    returned even if the file is missing: its reader reports that. Raises UsageError where a name does not match exactly
    one run, or the run has no checkpoint yet, DataError where its summary is damaged.
    """
    path = _path(text)
    if path.is_file() or (path.suffix and not path.is_dir()):
        return path
    gallery, mean = profile.evaluate.gallery, profile.combiner.select_by
    metric = protocol_of(profile.dataset, gallery).bests[0] if mean == "auto" else f"{mean}_mean"
    folder = _folder(profile, text, kind)
    summary = RunSummary.read(folder / SUMMARY)
    best = summary.bests.get(metric, summary.best)
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
    except RuntimeError as error:  # ~name of nobody
        raise UsageError(f"has no home folder ({error})", where=text) from error


def _folder(profile: Profile, text: str, kind: Kind | None) -> Path:
    folder = _path(text)
    if (folder / SUMMARY).is_file():  # of any workspace, or of none
        return folder
    if kind is None or text.startswith(tuple(f"{name}/" for name in FOLDERS.values())):
        return find_run(profile.workspace, text).folder
    try:
        return find_run(profile.workspace, f"{FOLDERS[kind]}/{text}").folder
    except UsageError as error:
        matched = error.what.partition(" matches ")[2]
        remedy = "Pass a file, or more of a run's name; `mlcl runs` lists them"
        what = f"{text!r} is not a file, and matches {matched} of {FOLDERS[kind]}"
        raise UsageError(what, where=error.where, remedy=remedy) from error
