"""Runs by their names, wherever a command takes a path."""

from pathlib import Path

from mlcl_cli.config import Profile
from mlcl_cli.data.datasets import protocol_of
from mlcl_cli.errors import UsageError
from mlcl_cli.runs.listing import STAGES, ListedRun, find_run, run_at
from mlcl_cli.runs.records import best_checkpoint
from mlcl_cli.runs.summary import SUMMARY


def checkpoint_named(profile: Profile, text: str, stage: str | None = None) -> Path:
    """The file that `text` names, or else the best checkpoint of the run that it names, one of `stage` if given.

    A name is a run's as `mlcl runs` lists it, its beginning, STAGE/name, or its folder. A path with a suffix that is
    not there is returned, for the reader to tell. Raises UsageError where a name fits no run or several, or the run has
    no checkpoint yet, DataError where its summary is damaged.
    """
    path = _path(text)
    if path.is_file() or (path.suffix and not path.is_dir()):
        return path
    run = _run(profile, text, stage)
    gallery, chosen = profile.evaluate.gallery, profile.combiner.select_by
    return best_checkpoint(
        run, protocol_of(profile.dataset, gallery).bests[0] if chosen == "auto" else f"{chosen}_mean"
    )


def run_named(profile: Profile, text: str, stage: str) -> Path:
    """The file that `text` names where there is one, else the folder of the run of `stage` that it names.

    Raises UsageError where a name fits no run or several.
    """
    path = _path(text)
    return path if path.is_file() or path.suffix else _run(profile, text, stage).folder


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser().resolve()
    except RuntimeError as error:  # ~name of nobody
        raise UsageError(f"has no home folder ({error})", where=text) from error


def _run(profile: Profile, text: str, stage: str | None) -> ListedRun:
    folder = _path(text)
    if (folder / SUMMARY).is_file():  # of any workspace, or of none
        return run_at(folder)
    staged = text.startswith(tuple(f"{name}/" for name in STAGES))
    if stage is None or staged:
        return find_run(profile, text)
    try:
        return find_run(profile, f"{stage}/{text}")
    except UsageError as error:
        listed = f"names {error.what.partition(' names ')[2]} of {stage}"
        remedy = "Give a file, or more of a run's name; `mlcl runs` lists them"
        raise UsageError(f"{text!r} is not a file, and {listed}", where=error.where, remedy=remedy) from error
