"""What `mlcl check` finds about runs: batches larger than the data, checkpoints that a command could not use."""

from collections.abc import Container, Sequence
from pathlib import Path

from mlcl_cli.config import Profile
from mlcl_cli.data.records import Split
from mlcl_cli.errors import DataError, UsageError
from mlcl_cli.models.weights import is_there, load_tuned
from mlcl_cli.runs.checkpoints import SUFFIX, load_checkpoint, require_probe
from mlcl_cli.runs.listing import list_runs
from mlcl_cli.workflows.base_clip import BaseClip
from mlcl_cli.workflows.checkpoint_selection import require_base
from mlcl_cli.workflows.findings import CheckResult
from mlcl_cli.workflows.stages import STAGES

COMBINING = ("evaluate", "submit-cirr")


def examine_batches(profile: Profile, splits: Sequence[Split], bad: Container[Path], result: CheckResult) -> None:
    """Batches larger than the training split, and splits of which nothing is left without `bad` images."""
    for whole in splits:
        split = whole
        if profile.bad_images == "drop":
            split = whole.without({name for name in whole.images() if whole.paths[name] in bad})
        for part in split.sets if split != whole else ():
            if not part.triplets:
                what = f"nothing is left of {part.name} without its bad images"
                commands = [c for c in result.needing([split.name]) if c != "submit-cirr"]
                result.add("images", "error", split.name, what, "Download the images again", commands)
        for stage in STAGES:
            if split.name != "train" or stage.command not in result.needing():
                continue
            try:
                stage.plan(profile).steps(len(split.triplets))
            except UsageError as error:
                result.add("batches", "error", f"{stage.name}.batch_size", error.what, error.remedy, [stage.command])


def examine_checkpoints(profile: Profile, result: CheckResult) -> None:
    """Damaged runs and checkpoints, and whether `clip.checkpoint` fits `clip.model`.

    A damaged `run.json` is a note where its stage has other runs: commands skip it.
    """
    users = {"finetune": result.needing(), "combiner": [c for c in result.needing() if c in COMBINING]}
    paths = {path: users[stage] for stage in users for path in (profile.workspace / stage).glob(f"*/*{SUFFIX}")}
    if isinstance(profile.clip.checkpoint, Path):
        paths[profile.clip.checkpoint] = result.needing()
    runs = list_runs(profile)
    sound = {run.stage for run in runs if run.problem is None}
    for run in runs:
        if (problem := run.problem) is None:
            continue
        if run.stage in sound:
            result.add("checkpoints", "note", problem.where, problem.what, problem.remedy)
        else:
            result.add("checkpoints", "error", problem.where, problem.what, problem.remedy, users[run.stage])
    for path, commands in sorted(paths.items()):
        try:
            _examine(profile, path)
        except DataError as error:
            result.add("checkpoints", "error", error.where, error.what, error.remedy, commands)
    trained = any(run.stage == "combiner" and run.summary["dataset"] == profile.dataset for run in runs)
    lacking = "" if trained else "; evaluate needs a trained combiner, or --combining-function sum"
    result.looked["checkpoints"] = f"{len(paths):,}{lacking}"


def _examine(profile: Profile, path: Path) -> None:
    given = path == profile.clip.checkpoint
    checkpoint = load_checkpoint(path, "clip" if given else None)
    require_probe(checkpoint)
    if not given or not is_there(profile.clip.model):
        return
    try:
        base = BaseClip(profile.clip.model)
    except DataError:
        return  # a finding of its own
    load_tuned(base.take(), checkpoint.state, path)
    require_base(checkpoint, base, profile.workspace)
