"""Checkpoints, which carry their own description, and training states, which hold all that a resumed run depends on."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, JsonValue, NonNegativeInt, PositiveInt
from torch import Tensor

from mlcl_cli.artifacts import DESCRIPTION, Artifact, Description, Metadata, Tensors, read_metadata, reporting_damage
from mlcl_cli.errors import DataError
from mlcl_cli.models.probe import TOLERANCE, distance, is_clip, make_probe
from mlcl_cli.models.weights import fingerprint
from mlcl_cli.runs.description import CheckpointDescription, Kind, TrainingDescription
from mlcl_cli.runs.original_format import read_original

SUFFIX = ".safetensors"
CHECKPOINT, CHECKPOINT_1 = "mlcl checkpoint 2", "mlcl checkpoint 1"
TITLES = {Kind.CLIP: "CLIP", Kind.COMBINER: "combiner"}
STATE, STATE_1 = "mlcl training state 2", "mlcl training state 1"


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a CLIP or a combiner, and what is known about them."""

    path: Path
    state: Tensors
    about: CheckpointDescription


class PlainState(BaseModel, strict=True, frozen=True):
    """The part of a training state that is not tensors: of optimizer, scaler, scheduler; the losses' names in order."""

    groups: list[dict[str, object]]
    scaler: dict[str, object]
    scheduler: dict[str, object] | None
    history: list[str]


@dataclass(frozen=True)
class TrainingState:
    """After `steps_done` steps of `epoch` (1-based).

    `optimizer` holds its tensors by "<parameter>.<name>", `history` the losses of this epoch's steps by name
    (steps_done,).
    """

    epoch: int
    steps_done: int
    weights: Tensors
    optimizer: Tensors
    history: Tensors
    plain: PlainState


class _StateDescription(BaseModel, strict=True):
    about: dict[str, JsonValue]
    epoch: PositiveInt
    steps_done: NonNegativeInt
    plain: PlainState


def save_checkpoint(
    path: Path,
    kind: Kind,
    state: Tensors,
    training: TrainingDescription,
    *,
    epoch: int,
    selected_by: str | None = None,
    score: float | None = None,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Write a checkpoint; what was at `path` before stays until it is complete.

    A CLIP gets a probe: the features of a fixed image and caption, which `require_probe` encodes again.
    """
    state = {name: tensor.detach().cpu() for name, tensor in state.items()}
    fields = {"kind": kind, "fingerprint": fingerprint(state), "epoch": epoch, "selected_by": selected_by}
    fields |= {"score": score, "metrics": None if metrics is None else dict(metrics)}
    fields["probe"] = make_probe(state) if kind is Kind.CLIP and is_clip(state) else None
    given = {key: value for key, value in fields.items() if value is not None}
    Artifact.save(path, CHECKPOINT, training.model_dump(mode="json", exclude_unset=True) | given, state)


def load_checkpoint(path: Path, kind: Kind | None = None) -> Checkpoint:
    """Read a checkpoint, of `kind` if given: a file that mlcl wrote, or a `.pt` of the original code.

    Raises DataError for a file that is missing, damaged, foreign, or of the other kind.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"this checkpoint {problem}", where=path, remedy="Use the path of a checkpoint file")
    with path.open("rb") as file:
        head = file.read(9)
    # Eight bytes of header length, then a JSON object. A `.pt` file is a zip archive.
    checkpoint = (
        _load_artifact(path) if path.suffix == SUFFIX or head[8:] == b"{" else Checkpoint(path, *read_original(path))
    )
    if kind is not None and kind is not checkpoint.about.kind:
        raise DataError(
            f"holds a {TITLES[checkpoint.about.kind]}, expected a {TITLES[kind]}",
            where=path,
            remedy="Set clip.checkpoint to a tuned CLIP, and --checkpoint to a combiner",
        )
    return checkpoint


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint in a checkpoint's description, without reading its weights; None in any other file."""
    try:
        metadata = read_metadata(path)
        is_older = metadata.get("format") == CHECKPOINT_1
        return str((_description_1(metadata) if is_older else Artifact.open(path).description)["fingerprint"])
    except (OSError, DataError, KeyError, ValueError):
        return None


def require_probe(checkpoint: Checkpoint) -> None:
    """Encode the probe of a tuned CLIP again; a checkpoint without a probe passes.

    Raises DataError where the features differ from the saved ones: the code that computes them has changed.
    """
    stored = checkpoint.about.probe
    if checkpoint.about.kind is not Kind.CLIP or stored is None:
        return
    try:
        difference = distance(make_probe(checkpoint.state), {"image": stored.image, "text": stored.text})
    except (ValueError, RuntimeError) as error:
        raise DataError("its probe cannot be read", where=checkpoint.path, remedy="Use another checkpoint") from error
    if not difference <= TOLERANCE:  # also true of NaN
        raise DataError(
            f"encodes its probe differently than when it was saved (off by {difference:.2g} of its length)",
            where=checkpoint.path,
            remedy="Its metrics would differ: use the versions of torch and mlcl that its run.json names",
        )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of an optimizer's state, as in `TrainingState.optimizer`."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": tensor for number, tensors in state.items() for name, tensor in tensors.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: TrainingState) -> None:
    """Load a state into `optimizer`, in the memory format of each parameter, which a fused step relies on."""
    tensors = {int(number): parts for number, parts in _by_prefix(state.optimizer).items()}
    optimizer.load_state_dict({"state": tensors, "param_groups": state.plain.groups})
    for parameter, restored in optimizer.state.items():
        for name, tensor in restored.items():
            if tensor.shape == parameter.shape:
                restored[name] = torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def save_state(path: Path, state: TrainingState, about: Mapping[str, object]) -> None:
    """Write `state`, and `about`, which describes its run. Raises MachineError where it cannot be written."""
    progress = {"epoch": state.epoch, "steps_done": state.steps_done, "plain": state.plain.model_dump()}
    parts = {"weights": state.weights, "optimizer": state.optimizer, "history": state.history}
    tensors = {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
    Artifact.save(path, STATE, {"about": dict(about), **progress}, tensors)


def load_state(path: Path) -> tuple[TrainingState, Description]:
    """Read a state and the description of its run. Raises DataError where it is missing, damaged or another file."""
    artifact, tensors = Artifact.load(path, OLDER_FORMATS)
    with reporting_damage(path):
        if artifact.format not in (STATE, STATE_1):
            raise ValueError("it contains no training state")
        return _training_state(artifact, tensors)


def _load_artifact(path: Path) -> Checkpoint:
    """Read a checkpoint, or a training state as one."""
    artifact, tensors = Artifact.load(path, OLDER_FORMATS)
    description = artifact.description
    with reporting_damage(path):
        if artifact.format in (STATE, STATE_1):
            state, about = _training_state(artifact, tensors)
            tensors = state.weights
            description = {**about, "epoch": state.epoch, "fingerprint": fingerprint(tensors)}
        elif artifact.format not in (CHECKPOINT, CHECKPOINT_1):
            raise ValueError("it contains no checkpoint")
        return Checkpoint(path, tensors, CheckpointDescription.model_validate(description))


def _training_state(artifact: Artifact, tensors: Tensors) -> tuple[TrainingState, Description]:
    description = _StateDescription.model_validate(artifact.description)
    parts: dict[str, Tensors] = {"weights": {}, "optimizer": {}, "history": {}, **_by_prefix(tensors)}
    return TrainingState(description.epoch, description.steps_done, **parts, plain=description.plain), description.about


def _by_prefix(tensors: Tensors) -> dict[str, dict[str, Tensor]]:
    """Tensors named "<prefix>.<name>" by prefix and name."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        prefix, name = key.split(".", 1)
        parts.setdefault(prefix, {})[name] = tensor
    return parts


def _description_1(metadata: Metadata) -> Description:
    text = metadata["about"]
    if metadata["checksum"] != hashlib.sha256(text.encode()).hexdigest():
        raise ValueError("its description does not match its checksum")
    return DESCRIPTION.validate_json(text)


def _read_checkpoint_1(metadata: Metadata, tensors: Tensors) -> tuple[Description, Tensors]:
    description = _description_1(metadata)
    if description["fingerprint"] != fingerprint(tensors):
        raise ValueError("its weights do not match their fingerprint")
    return description, tensors


def _read_state_1(metadata: Metadata, tensors: Tensors) -> tuple[Description, Tensors]:
    text = metadata["told"]
    if metadata["checksum"] != hashlib.sha256(f"{text}{fingerprint(tensors)}".encode()).hexdigest():
        raise ValueError("it does not match its checksum")
    # Version 0.1.0 spelled the optimizer's tensors "optimiser.…".
    renamed = {name.replace("optimiser.", "optimizer.", 1): tensor for name, tensor in tensors.items()}
    return DESCRIPTION.validate_json(text), renamed


OLDER_FORMATS = {CHECKPOINT_1: _read_checkpoint_1, STATE_1: _read_state_1}
