"""`mlcl check`: checks everything that a run will need. None of the user's files is changed."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mlcl_cli.config import Profile
from mlcl_cli.data.records import Split
from mlcl_cli.errors import DataError, MlclError
from mlcl_cli.formatting import counted
from mlcl_cli.images.decode import set_limits
from mlcl_cli.models.compute import choose_compute, choose_workers
from mlcl_cli.progress import Progress
from mlcl_cli.workflows import check_data, check_machine
from mlcl_cli.workflows.content_digests import Contents
from mlcl_cli.workflows.findings import CheckReport
from mlcl_cli.workflows.run_context import read_split


def check(profile: Profile, progress: Progress, *, splits: Sequence[str] = (), content: bool = False) -> CheckReport:
    """Check annotations, images, counts, device, CLIP, checkpoints, disk and memory, and judge each command.

    `splits` are the splits to look at, all by default. A training or test split that is missing entirely is a note:
    the data is meant for other commands. If the user names the split, it is an error. `content` hashes every image
    and compares it with the recorded hash.
    """
    dataset = profile.definition
    for split in splits:
        dataset.require_split(split)
    report = CheckReport(profile, dataset, progress, tuple(splits) or dataset.splits, bool(splits))
    set_limits(profile.image.max_megapixels, profile.image.read_seconds)
    contents = Contents(profile.workspace, choose_workers(profile.workers), progress)
    try:
        report.looked_at["device"] = str(choose_compute(profile.device, profile.precision))
    except MlclError as error:
        report.add_exception("device", error, report.reads)
    if preparation := report.preparation:
        try:
            prepared = preparation.prepare(profile.root, profile.folders, progress)
            report.looked_at[preparation.command] = f"{sum(prepared.images.values()):,} raw images"
        except DataError as error:
            report.add_exception(preparation.command, error, [preparation.command])
    loaded = _read_splits(report)
    check_data.check_captions(report, loaded)
    check_data.check_counts(report, loaded)
    check_data.check_leakage(report, loaded)
    check_data.check_names(report, loaded)
    clip = check_machine.check_clip(report)
    bad = check_data.check_images(report, loaded, clip.resolution if clip else None)
    if content:
        check_data.check_contents(report, loaded, contents)
    check_data.check_galleries(report, loaded, contents)
    if profile.workspace.is_dir():
        contents.save()
    check_machine.check_batches(report, loaded, bad)
    check_machine.check_checkpoints(report)
    check_machine.check_room(report, loaded, clip)
    return report


def _read_splits(report: CheckReport) -> list[Split]:
    """The splits that can be read. A split that is missing entirely is an error only if it is needed."""
    loaded: list[Split] = []
    missing: dict[str, DataError] = {}
    for name in report.splits:
        add_defect = partial(_add_defect, report, name)
        try:
            loaded.append(read_split(report.profile, name, on_defect=add_defect))
        except DataError as error:
            if not report.splits_named and _is_missing(name, error):
                missing[name] = error
            else:
                add_defect(error)
    has_val = any(split.name == "val" for split in loaded)
    for name, defect in missing.items():
        if name == "val" or not has_val:
            _add_defect(report, name, defect)
        elif commands := report.readers(name):
            remedy = f"Download them to run {' or '.join(commands)}"
            report.add("annotations", defect.where, f"no annotations for {name}", remedy, commands)
    report.looked_at["annotations"] = counted(sum(len(split.triplets) for split in loaded), "triplet")
    return loaded


def _add_defect(report: CheckReport, split: str, error: DataError) -> None:
    """Add an error, or a note if no command reads the split, such as FashionIQ's test split."""
    commands = report.readers(split)
    report.add_exception("annotations", error, commands, is_error=bool(commands or report.splits_named))


def _is_missing(split: str, error: DataError) -> bool:
    """Whether an annotation file is missing, and the folder has no other of this split."""
    where = error.where
    if not isinstance(error.__cause__, FileNotFoundError) or not isinstance(where, Path):
        return False
    return _is_about(split, where) and not any(_is_about(split, path) for path in where.parent.glob("*"))


def _is_about(split: str, file: Path) -> bool:
    """Whether the file's name has the split's name among its words, such as cap.dress.val.json."""
    return split in re.split(r"[._]", file.name)
