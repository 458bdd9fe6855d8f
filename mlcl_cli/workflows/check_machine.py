"""What `mlcl check` finds about CLIP, batches, checkpoints, the disk and the memory."""

import shutil
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from mlcl_cli.atomic_files import nearest_existing_parent
from mlcl_cli.config import Profile
from mlcl_cli.data.records import Split
from mlcl_cli.errors import DataError, MlclError, UsageError
from mlcl_cli.formatting import counted
from mlcl_cli.models.weights import UNKNOWN_ACTIVATION, is_official, load_clip, load_tuned, needs_download
from mlcl_cli.runs.checkpoints import SUFFIX, load_checkpoint, require_probe
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.listing import folder_size, list_runs
from mlcl_cli.workflows.base_clip import BaseClip
from mlcl_cli.workflows.checkpoint_selection import require_base
from mlcl_cli.workflows.findings import CheckReport
from mlcl_cli.workflows.stages import STAGES

FLOAT_BYTES = 4
# Per parameter: a run keeps two states, each with the weight and the two moments of AdamW (METHOD.md, Section 4.4).
STATE_BYTES = 2 * 3 * FLOAT_BYTES


@dataclass(frozen=True)
class ClipSizes:
    """The features' dimension, the number of parameters, and the input's width in pixels."""

    features: int
    parameters: int
    resolution: int


def check_clip(report: CheckReport) -> ClipSizes | None:
    """The sizes of the profile's CLIP, if its file exists and is valid."""
    model = report.profile.clip.model
    if needs_download(model):
        report.add("clip", "clip.model", f"{model} is not downloaded yet: the first run downloads it")
        return None
    try:
        network = load_clip(model)
    except MlclError as error:
        report.add_exception("clip", error, report.reads)
        return None
    if isinstance(model, Path) and not is_official(model):
        report.add("clip", model, UNKNOWN_ACTIVATION)
    report.looked_at["clip"] = str(model)
    weights = network.state_dict()
    parameters = sum(tensor.numel() for tensor in weights.values())
    resolution = network.get_submodule("visual").input_resolution
    return ClipSizes(int(weights["text_projection"].shape[1]), parameters, int(resolution))  # type: ignore[arg-type]


def check_batches(report: CheckReport, splits: Sequence[Split], bad: Container[Path]) -> None:
    """Find batches larger than the training split, and splits of which nothing is left without `bad` images."""
    for split in splits:
        pruned = split
        if report.profile.bad_images == "drop":
            pruned = split.without({name for name in split.images() if split.paths[name] in bad})
        for before, after in zip(split.sets, pruned.sets, strict=True):
            if before.triplets and not after.triplets:
                what = f"{after.name} has no triplets left without its bad images"
                commands = [command for command in report.readers(split.name) if command != report.submission]
                report.add("images", split.name, what, "Download the images again", commands, is_error=True)
        for stage in STAGES if split.name == "train" else ():
            try:
                stage.plan(report.profile).steps(len(pruned.triplets))
            except UsageError as error:
                where = f"{stage.name}.batch_size"
                report.add("batches", where, error.what, error.remedy, [stage.command], is_error=True)


def check_checkpoints(report: CheckReport) -> None:
    """Find damaged runs and checkpoints, and a `clip.checkpoint` that does not fit `clip.model`.

    A damaged `run.json` is a note if its stage has other runs: commands skip it.
    """
    profile = report.profile
    # Every command can start from a tuned CLIP, but training starts from no combiner.
    training = {stage.command for stage in STAGES}
    users = {Kind.CLIP: [*report.reads], Kind.COMBINER: [name for name in report.reads if name not in training]}
    paths = {
        path: users[stage.kind] for stage in STAGES for path in (profile.workspace / stage.name).glob(f"*/*{SUFFIX}")
    }
    if isinstance(profile.clip.checkpoint, Path):
        paths[profile.clip.checkpoint] = [*report.reads]
    runs = list_runs(profile.workspace)
    usable = {run.kind for run in runs if run.problem is None}
    for run in runs:
        if run.problem is not None:
            skips = run.kind in usable
            report.add_exception("checkpoints", run.problem, () if skips else users[run.kind], is_error=not skips)
    for path, commands in sorted(paths.items()):
        try:
            _require_usable(profile, path)
        except DataError as error:
            report.add_exception("checkpoints", error, commands)
    combiners = [run for run in runs if run.kind is Kind.COMBINER and run.problem is None]
    has_combiner = any(run.summary.dataset == profile.dataset for run in combiners)
    needed = "" if has_combiner else "; evaluate needs a trained combiner, or --combining-function sum"
    report.looked_at["checkpoints"] = f"{counted(len(paths), 'file')} of {counted(len(runs), 'run')}{needed}"


def _require_usable(profile: Profile, path: Path) -> None:
    is_given = path == profile.clip.checkpoint
    checkpoint = load_checkpoint(path, Kind.CLIP if is_given else None)
    require_probe(checkpoint)
    if not is_given or needs_download(profile.clip.model):
        return
    try:
        base = BaseClip(profile.clip.model)
    except DataError:
        return  # `check_clip` reports it
    load_tuned(base.take(), checkpoint.state, path)
    require_base(checkpoint, base, profile.workspace)


def check_room(report: CheckReport, splits: Sequence[Split], clip: ClipSizes | None) -> None:
    """Compare disk and memory with what each command needs: its images' features, and a training run's state."""
    workspace = report.profile.workspace
    free = shutil.disk_usage(nearest_existing_parent(workspace)).free
    available = psutil.virtual_memory().available
    report.looked_at["disk"] = f"{free / 2**30:,.1f} GiB free"
    report.looked_at["memory"] = f"{available / 2**30:,.1f} GiB available"
    if clip is None:
        return
    combiner, stored = report.profile.combiner, folder_size(workspace / "features")
    p, h, d = combiner.projection_dim, combiner.hidden_dim, clip.features
    weights = {"finetune": clip.parameters, "train-combiner": 2 * d * p + 4 * p * h + 2 * h * d}
    views = {"train-combiner": combiner.augmented_views if isinstance(combiner.augmented_views, int) else 0}
    disk: dict[str, int] = {}
    memory: dict[str, int] = {}
    for command, read in report.reads.items():
        images = len({path for split in splits if split.name in read for path in split.paths.values()})
        bank = FLOAT_BYTES * d * images * (1 + views.get(command, 0))
        state = STATE_BYTES * weights.get(command, 0)
        disk[command], memory[command] = max(0, bank - stored) + state, bank + state
    for check, where, needed, limit, remedy in (
        ("disk", workspace, disk, free, "Free up space, or choose another workspace"),
        ("memory", "this machine", memory, available, "Close other programs"),
    ):
        if failing := [command for command, size in needed.items() if size > limit]:
            what = f"{max(needed.values()) / 2**30:,.1f} GiB needed, {limit / 2**30:,.1f} GiB available"
            report.add(check, where, what, remedy, failing, is_error=True)
