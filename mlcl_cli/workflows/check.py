"""`mlcl check`: everything that a run will need, looked at before it begins. None of the user's files is changed."""

from collections.abc import Sequence
from pathlib import Path

from mlcl_cli.config import Profile
from mlcl_cli.data.datasets import DATASETS, require_split
from mlcl_cli.data.records import Split
from mlcl_cli.errors import DataError, MlclError
from mlcl_cli.formatting import counted
from mlcl_cli.images.decode import set_limits
from mlcl_cli.models.compute import choose_compute, choose_workers
from mlcl_cli.progress import Progress
from mlcl_cli.workflows import check_data, check_runs
from mlcl_cli.workflows.check_images import check_images
from mlcl_cli.workflows.check_machine import check_clip, check_room
from mlcl_cli.workflows.check_scope import Scope
from mlcl_cli.workflows.content_digests import Contents
from mlcl_cli.workflows.findings import (
    CheckResult,
    Finding,
    Findings,
    FindingsAnd,
    Looked,
    error,
    judge,
    merge,
    note,
    raised,
)
from mlcl_cli.workflows.run_context import read_split


def check(profile: Profile, progress: Progress, *, splits: Sequence[str] = (), content: bool = False) -> CheckResult:
    """Checks annotations, images, counts, device, CLIP, checkpoints, disk and memory, and judges each command.

    `splits` are the splits to look at, by default all. A training or test split that is missing entirely is a note:
    the data is meant for other commands. If the user names the split, it is an error. `content` hashes every image
    and compares it with what was recorded.
    """
    dataset = DATASETS[profile.dataset]
    for split in splits:
        require_split(dataset, split)
    scope = Scope(profile, tuple(splits) or dataset.splits, bool(splits), progress)
    set_limits(profile.image.max_megapixels, profile.image.read_seconds)
    reports = [*_checks(scope, content=content)]
    findings = merge(report for report in reports if isinstance(report, Finding))
    reads = ({scope.preparation.command: ()} if scope.preparation else {}) | {**scope.reads}
    looked_at = {report.check: report.summary for report in reports if isinstance(report, Looked)}
    return CheckResult(dataset.name, looked_at, findings, judge(findings, reads, scope.splits))


def _checks(scope: Scope, *, content: bool) -> Findings:
    workers = choose_workers(scope.profile.workers)
    contents = Contents.open(scope.profile.workspace, workers, scope.progress)
    yield from _check_device(scope)
    yield from _check_preparation(scope)
    splits = yield from _check_annotations(scope)
    yield from check_data.check_captions(splits)
    yield from check_data.check_counts(scope, splits)
    yield from check_data.check_leakage(scope, splits)
    yield from check_data.check_names(scope, splits)
    clip = yield from check_clip(scope)
    bad = yield from check_images(scope, splits, clip)
    if content:
        yield from check_data.check_contents(scope, splits, contents)
    yield from check_data.check_galleries(splits, contents)
    if scope.profile.workspace.is_dir():
        contents.save()
    yield from check_runs.check_batches(scope, splits, bad)
    yield from check_runs.check_checkpoints(scope)
    yield from check_room(scope, splits, clip)


def _check_device(scope: Scope) -> Findings:
    try:
        yield Looked("device", str(choose_compute(scope.profile.device, scope.profile.precision)))
    except MlclError as problem:
        yield raised("device", problem, scope.reads)


def _check_preparation(scope: Scope) -> Findings:
    """Whether the raw download can be prepared, if it has to be."""
    if (preparation := scope.preparation) is None:
        return
    try:
        prepared = preparation.prepare(scope.profile.root, scope.profile.folders, scope.progress)
    except DataError as problem:
        yield raised(preparation.command, problem, [preparation.command])
    else:
        yield Looked(preparation.command, f"{sum(prepared.images.values()):,} raw images")


def _check_annotations(scope: Scope) -> FindingsAnd[list[Split]]:
    """The splits that can be read. A split that is missing entirely is an error only if it is needed."""
    loaded: list[Split] = []
    missing: dict[str, DataError] = {}
    for name in scope.splits:
        defects: list[DataError] = []
        try:
            loaded.append(read_split(scope.profile, name, defects.append))
        except DataError as problem:
            if not scope.named and _is_missing(name, problem):
                missing[name] = problem
            else:
                defects.append(problem)
        for defect in defects:
            yield _defect(scope, name, defect)
    has_val = any(split.name == "val" for split in loaded)
    for name, lack in missing.items():
        commands = scope.readers(name)
        if name == "val" or not has_val:
            yield _defect(scope, name, lack)
        elif commands:
            remedy = f"Download them to run {' or '.join(commands)}"
            yield note("annotations", lack.where, f"there are no annotations of {name}", remedy, commands)
    yield Looked("annotations", counted(sum(len(split.triplets) for split in loaded), "triplet"))
    return loaded


def _defect(scope: Scope, split: str, problem: DataError) -> Finding:
    """A note if no command reads the split, such as FashionIQ's test split."""
    commands = scope.readers(split)
    report = error if commands or scope.named else note
    return report("annotations", problem.where, problem.what, problem.remedy, commands)


def _is_missing(split: str, problem: DataError) -> bool:
    """Whether an annotation file is missing, and the folder has no other of this split."""
    where = problem.where
    if not isinstance(problem.__cause__, FileNotFoundError) or not isinstance(where, Path):
        return False
    return f".{split}." in where.name and not any(where.parent.glob(f"*.{split}.*"))
