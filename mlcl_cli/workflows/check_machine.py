"""What `mlcl check` finds about CLIP's weights, the disk and the memory."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from mlcl_cli.atomic_files import nearest_existing_parent
from mlcl_cli.data.records import Split
from mlcl_cli.errors import MlclError
from mlcl_cli.models.weights import UNKNOWN_ACTIVATION, is_official, load_clip, needs_download
from mlcl_cli.workflows.check_scope import Scope
from mlcl_cli.workflows.findings import Findings, FindingsAnd, Looked, error, note, raised

FLOAT_BYTES = 4
# A run keeps its weights and the two moments of AdamW (METHOD.md, Section 4.4), and replaces one state by the next.
STATE_BYTES = 2 * 3 * FLOAT_BYTES


@dataclass(frozen=True)
class ClipSizes:
    """Of a CLIP: the features' dimension, the number of parameters, and the input's width in pixels."""

    features: int
    parameters: int
    resolution: int


def check_clip(scope: Scope) -> FindingsAnd[ClipSizes | None]:
    """The sizes of the profile's CLIP, if its file is there."""
    model = scope.profile.clip.model
    if needs_download(model):
        yield note("clip", "clip.model", f"{model} is not downloaded yet: the first run will")
        return None
    try:
        network = load_clip(model)
    except MlclError as problem:
        yield raised("clip", problem, scope.reads)
        return None
    if isinstance(model, Path) and not is_official(model):
        yield note("clip", model, UNKNOWN_ACTIVATION)
    yield Looked("clip", str(model))
    weights = network.state_dict()
    parameters = sum(tensor.numel() for tensor in weights.values())
    resolution = network.get_submodule("visual").input_resolution
    return ClipSizes(int(weights["text_projection"].shape[1]), parameters, int(resolution))  # type: ignore[arg-type]


def check_room(scope: Scope, splits: Sequence[Split], clip: ClipSizes | None) -> Findings:
    """Disk and memory for each command: its images' features, and a training run's state."""
    workspace = scope.profile.workspace
    free = shutil.disk_usage(nearest_existing_parent(workspace)).free
    available = psutil.virtual_memory().available
    yield Looked("disk", f"{free / 2**30:,.1f} GiB free")
    yield Looked("memory", f"{available / 2**30:,.1f} GiB available")
    if clip is None:
        return
    combiner, stored = scope.profile.combiner, _size_of(workspace / "features")
    p, h, d = combiner.projection_dim, combiner.hidden_dim, clip.features
    weights = {"finetune": clip.parameters, "train-combiner": 2 * d * p + 4 * p * h + 2 * h * d}
    views = {"train-combiner": combiner.augmented_views if isinstance(combiner.augmented_views, int) else 0}
    disk: dict[str, int] = {}
    memory: dict[str, int] = {}
    for command, read in scope.reads.items():
        images = len({path for split in splits if split.name in read for path in split.paths.values()})
        bank = FLOAT_BYTES * d * images * (1 + views.get(command, 0))
        state = STATE_BYTES * weights.get(command, 0)
        disk[command], memory[command] = max(0, bank - stored) + state, bank + state
    yield from _shortage("disk", workspace, disk, free, "Free space, or choose another workspace")
    yield from _shortage("memory", "this machine", memory, available, "Close other programs")


def _shortage(check: str, where: object, needed: Mapping[str, int], available: int, remedy: str) -> Findings:
    if failing := [command for command, size in needed.items() if size > available]:
        what = f"{max(needed.values()) / 2**30:,.1f} GiB needed, {available / 2**30:,.1f} GiB available"
        yield error(check, where, what, remedy, failing)


def _size_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # another process may be replacing it
            total += path.lstat().st_size
    return total
