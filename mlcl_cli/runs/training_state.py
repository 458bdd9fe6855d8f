"""The state of a training run after a step: everything that the rest of the run depends on, in one file."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from torch import Tensor

from mlcl_cli.artifacts import DESCRIPTION, Artifact, Description, Metadata, OlderReader, Tensors, damage_named
from mlcl_cli.errors import DataError
from mlcl_cli.models.weights import fingerprint

FORMAT = "mlcl training state 2"
PARTS = ("weights", "optimizer", "history")


class PlainState(BaseModel):
    """The state of optimizer, scaler and scheduler beside tensors, and the order of the losses' names."""

    model_config = ConfigDict(strict=True, frozen=True)

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


class _StateDescription(BaseModel):
    model_config = ConfigDict(strict=True)

    about: dict[str, JsonValue]
    epoch: Annotated[int, Field(ge=1)]
    steps_done: Annotated[int, Field(ge=0)]
    plain: PlainState


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of an optimizer's state, as in `TrainingState.optimizer`."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": tensor for number, tensors in state.items() for name, tensor in tensors.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: TrainingState) -> None:
    """Load a state into `optimizer`, in the memory format of each parameter, which a fused step relies on."""
    tensors: dict[int, dict[str, Tensor]] = {}
    for key, tensor in state.optimizer.items():
        number, name = key.split(".", 1)
        tensors.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": tensors, "param_groups": state.plain.groups})
    for parameter, restored in optimizer.state.items():
        for name, tensor in restored.items():
            if tensor.shape == parameter.shape:
                restored[name] = torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def save_state(path: Path, state: TrainingState, about: Mapping[str, object]) -> None:
    """Write `state`, and what `about` says of its run. Raises MachineError where it cannot be written."""
    progress = {"epoch": state.epoch, "steps_done": state.steps_done, "plain": state.plain.model_dump()}
    tensors = {f"{part}.{name}": tensor for part in PARTS for name, tensor in getattr(state, part).items()}
    Artifact.save(path, FORMAT, {"about": dict(about), **progress}, tensors)


def load_state(path: Path) -> tuple[TrainingState, Description]:
    """Read a state and what it says of its run. Raises DataError where it is missing, damaged or another file."""
    if not path.is_file():
        raise DataError("this checkpoint does not exist", where=path, remedy="Resume from another checkpoint")
    return state_of(*Artifact.load(path, OLDER_FORMATS))


def state_of(artifact: Artifact, tensors: Tensors) -> tuple[TrainingState, Description]:
    """The state in a loaded file, and what it says of its run. Raises DataError where it holds anything else."""
    with damage_named(artifact.path):
        if artifact.format not in FORMATS:
            raise ValueError("it holds no training state")
        description = _StateDescription.model_validate(artifact.description)
    parts = {
        part: {name.split(".", 1)[1]: tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}
        for part in PARTS
    }
    state = TrainingState(description.epoch, description.steps_done, **parts, plain=description.plain)
    return state, description.about


def _read_format_1(metadata: Metadata, tensors: Tensors) -> tuple[Description, Tensors]:
    text = metadata["told"]
    if metadata["checksum"] != hashlib.sha256(f"{text}{fingerprint(tensors)}".encode()).hexdigest():
        raise ValueError("it does not match its checksum")
    # Version 0.1.0 spelled the optimizer's tensors "optimiser.…".
    renamed = {name.replace("optimiser.", "optimizer.", 1): tensor for name, tensor in tensors.items()}
    return DESCRIPTION.validate_json(text), renamed


OLDER_FORMATS: Mapping[str, OlderReader] = {"mlcl training state 1": _read_format_1}
FORMATS = (FORMAT, *OLDER_FORMATS)
