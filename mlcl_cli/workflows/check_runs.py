"""What `mlcl check` finds about runs: batches larger than the data, checkpoints that a command could not use."""

from collections.abc import Container, Sequence
from pathlib import Path

from mlcl_cli.config import Profile
from mlcl_cli.data.records import Split
from mlcl_cli.errors import DataError, UsageError
from mlcl_cli.models.weights import load_tuned, needs_download
from mlcl_cli.runs.checkpoints import SUFFIX, load_checkpoint, require_probe
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.listing import list_runs
from mlcl_cli.workflows.base_clip import BaseClip
from mlcl_cli.workflows.check_scope import Scope
from mlcl_cli.workflows.checkpoint_selection import require_base
from mlcl_cli.workflows.findings import Findings, Looked, error, note, raised
from mlcl_cli.workflows.stages import STAGES


def check_batches(scope: Scope, splits: Sequence[Split], bad: Container[Path]) -> Findings:
    """Batches larger than the training split, and splits of which nothing is left without `bad` images."""
    for whole in splits:
        split = whole
        if scope.profile.bad_images == "drop":
            split = whole.without({name for name in whole.images() if whole.paths[name] in bad})
        for part in split.sets if split != whole else ():
            if not part.triplets:
                what = f"nothing is left of {part.name} without its bad images"
                commands = [command for command in scope.readers(split.name) if command != scope.submission]
                yield error("images", split.name, what, "Download the images again", commands)
        for stage in STAGES:
            if split.name != "train" or stage.command not in scope.reads:
                continue
            try:
                stage.plan(scope.profile).steps(len(split.triplets))
            except UsageError as problem:
                yield error("batches", f"{stage.name}.batch_size", problem.what, problem.remedy, [stage.command])


def check_checkpoints(scope: Scope) -> Findings:
    """Damaged runs and checkpoints, and whether `clip.checkpoint` fits `clip.model`.

    A damaged `run.json` is a note if its stage has other runs: commands skip it.
    """
    profile = scope.profile
    # Every command can start from a tuned CLIP; a combiner is of no use in training.
    training = {stage.command for stage in STAGES}
    users = {stage.kind: [*scope.reads] for stage in STAGES}
    users[Kind.COMBINER] = [command for command in scope.reads if command not in training]
    paths = {
        path: users[stage.kind] for stage in STAGES for path in (profile.workspace / stage.name).glob(f"*/*{SUFFIX}")
    }
    if isinstance(profile.clip.checkpoint, Path):
        paths[profile.clip.checkpoint] = [*scope.reads]
    runs = list_runs(profile.workspace)
    usable = {run.kind for run in runs if run.problem is None}
    for run in runs:
        if run.problem is not None and run.kind in usable:
            yield note("checkpoints", run.problem.where, run.problem.what, run.problem.remedy)
        elif run.problem is not None:
            yield raised("checkpoints", run.problem, users[run.kind])
    for path, commands in sorted(paths.items()):
        try:
            _require_usable(profile, path)
        except DataError as problem:
            yield raised("checkpoints", problem, commands)
    combiners = [run for run in runs if run.kind is Kind.COMBINER and run.problem is None]
    trained = any(run.summary.dataset == profile.dataset for run in combiners)
    lacking = "" if trained else "; evaluate needs a trained combiner, or --combining-function sum"
    yield Looked("checkpoints", f"{len(paths):,}{lacking}")


def _require_usable(profile: Profile, path: Path) -> None:
    is_given = path == profile.clip.checkpoint
    checkpoint = load_checkpoint(path, Kind.CLIP if is_given else None)
    require_probe(checkpoint)
    if not is_given or needs_download(profile.clip.model):
        return
    try:
        base = BaseClip(profile.clip.model)
    except DataError:
        return  # a finding of its own
    load_tuned(base.take(), checkpoint.state, path)
    require_base(checkpoint, base, profile.workspace)
