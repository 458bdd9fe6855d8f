"""The state of a training run at the end of a step: all that the rest of it depends on, in one file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mlcl_cli.atomic_files import write_tensors
from mlcl_cli.errors import DataError
from mlcl_cli.models.weights import fingerprint
from mlcl_cli.safe_reading import parse_json

FORMAT = "mlcl training state 1"
PARTS = ("weights", "optimizer", "history")
FORMER_PARTS = {"optimiser": "optimizer"}  # names in files of version 0.1.0


@dataclass(frozen=True)
class TrainingState:
    """After `steps_done` steps of `epoch` (1-based).

    `optimizer` holds its tensors by "<parameter>.<name>", `history` the losses of this epoch's steps by name
    (steps_done,), `plain` what else optimizer, scaler and scheduler know, in plain types.
    """

    epoch: int
    steps_done: int
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    history: Mapping[str, Tensor]
    plain: Mapping[str, Any]


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's tensors, and its groups in plain types."""
    state = optimizer.state_dict()
    tensors = {f"{number}.{name}": tensor for number, own in state["state"].items() for name, tensor in own.items()}
    return tensors, {"groups": state["param_groups"]}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]
) -> None:
    """Puts back what `optimizer_state` gave, in the memory format of each parameter, which a fused step relies on."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": plain["groups"]})
    for parameter, own in optimizer.state.items():
        for name, tensor in own.items():
            if tensor.shape == parameter.shape:
                own[name] = torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def save_state(path: Path, state: TrainingState, about: Mapping[str, Any]) -> None:
    """Writes `state` whole or not at all, with a checksum over everything in it."""
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part in PARTS
        for name, tensor in getattr(state, part).items()
    }
    told = {"about": dict(about), "epoch": state.epoch, "steps_done": state.steps_done, "plain": dict(state.plain)}
    text = json.dumps(told, allow_nan=False)
    metadata = {"format": FORMAT, "told": text, "checksum": _checksum(text, tensors)}
    write_tensors(path, tensors, metadata)


def load_state(path: Path) -> tuple[TrainingState, dict[str, Any]]:
    """Reads what `save_state` wrote, and its description. Raises DataError where it is missing, damaged or foreign."""
    remedy = "Resume from another checkpoint of the run"
    if not path.is_file():
        raise DataError("this checkpoint does not exist", where=path, remedy=remedy)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise DataError("holds no training state", where=path, remedy=remedy)
        if metadata["checksum"] != _checksum(metadata["told"], tensors):
            raise DataError("does not match its checksum", where=path, remedy=remedy)
        told = _Told.model_validate(parse_json(metadata["told"]))
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
        for key, tensor in tensors.items():
            part, name = key.split(".", 1)
            parts[FORMER_PARTS.get(part, part)][name] = tensor
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"is damaged ({error})", where=path, remedy=remedy) from error
    return TrainingState(told.epoch, told.steps_done, **parts, plain=told.plain), told.about


class _Told(BaseModel):
    """What a state file holds beside its tensors."""

    model_config = ConfigDict(strict=True)

    about: dict[str, Any]
    epoch: Annotated[int, Field(ge=1)]
    steps_done: Annotated[int, Field(ge=0)]
    plain: dict[str, Any]


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(f"{text}{fingerprint(tensors)}".encode()).hexdigest()
