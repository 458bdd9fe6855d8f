"""Checkpoints that carry their own description: weights in safetensors, and the original `.pt` format in and out."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mlcl_cli.errors import DataError
from mlcl_cli.files import write_file, write_tensors
from mlcl_cli.inputs import parse_json
from mlcl_cli.models.combiner import is_combiner_state
from mlcl_cli.models.weights import fingerprint, read_torch_file
from mlcl_cli.training.state import FORMAT as STATE_FORMAT
from mlcl_cli.training.state import load_state

Kind = Literal["clip", "combiner"]
ORIGINAL_KEYS: dict[Kind, str] = {"clip": "CLIP", "combiner": "Combiner"}
FORMAT = "mlcl checkpoint 1"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a CLIP or a combiner. `about` is its description; an original file has an epoch at most."""

    path: Path
    kind: Kind
    state: dict[str, Tensor]
    about: Mapping[str, Any]


def save_checkpoint(path: Path, kind: Kind, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes a checkpoint whole or not at all; what was at `path` before stays until the new one is safe."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    description = {"kind": kind, "fingerprint": fingerprint(tensors), **about}
    text = json.dumps(description, allow_nan=False)
    metadata = {"format": FORMAT, "about": text, "checksum": _checksum(text)}
    write_tensors(path, tensors, metadata)


def load_checkpoint(path: Path, kind: Kind | None = None) -> Checkpoint:
    """Reads a checkpoint, of `kind` if given, ours or an original `.pt`, and checks it against its fingerprint.

    Raises DataError for a file that is missing, damaged, foreign, or of the other kind.
    """
    if not path.is_file():
        there = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"this checkpoint {there}", where=path, remedy="Give the path of a checkpoint file")
    checkpoint = _load_own(path) if _is_safetensors(path) else _load_original(path)
    if kind is not None and checkpoint.kind != kind:
        raise DataError(
            f"is a checkpoint of a {checkpoint.kind}, not of a {kind}",
            where=path,
            remedy="A tuned CLIP goes to clip.checkpoint, a combiner to --checkpoint",
        )
    return checkpoint


def export_original(checkpoint: Checkpoint, path: Path) -> None:
    """Writes the original code's format, `torch.save({"epoch": int, "CLIP" or "Combiner": state_dict})`."""
    content = {"epoch": int(checkpoint.about.get("epoch", 0)), ORIGINAL_KEYS[checkpoint.kind]: dict(checkpoint.state)}
    write_file(path, lambda stage: torch.save(content, stage))


def _is_safetensors(path: Path) -> bool:
    """Told by content, not by name: eight bytes of header length, then a JSON object. A `.pt` file is a zip archive."""
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == SUFFIX or head[8:] == b"{"


def _load_own(path: Path) -> Checkpoint:
    remedy = "Use another checkpoint of the run; this one is damaged or not mlcl's"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") == STATE_FORMAT:
                return _of_state(path)
            if metadata.get("format") != FORMAT:
                raise DataError("holds no mlcl checkpoint", where=path, remedy="Give a file that mlcl wrote, or a .pt")
            if metadata.get("checksum") != _checksum(metadata["about"]):
                raise DataError("its description does not match its checksum", where=path, remedy=remedy)
            about = parse_json(metadata["about"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot be read ({error})", where=path, remedy=remedy) from error
    if about.get("fingerprint") != fingerprint(state):
        raise DataError("its weights do not match their fingerprint", where=path, remedy=remedy)
    return Checkpoint(path, about["kind"], state, about)


def _of_state(path: Path) -> Checkpoint:
    """The weights of a run's last state."""
    state, about = load_state(path)
    weights = dict(state.weights)
    return Checkpoint(
        path, about["kind"], weights, {**about, "epoch": state.epoch, "fingerprint": fingerprint(weights)}
    )


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _load_original(path: Path) -> Checkpoint:
    content = read_torch_file(path)
    if isinstance(content, dict):
        for kind, key in ORIGINAL_KEYS.items():
            state = content.get(key)
            if isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values()):
                epoch = content.get("epoch", 0)
                return Checkpoint(path, kind, state, {"epoch": epoch if isinstance(epoch, int) else 0})
        if all(isinstance(value, Tensor) for value in content.values()) and content:
            return Checkpoint(path, "combiner" if is_combiner_state(content) else "clip", content, {})
    raise DataError("holds neither a CLIP nor a combiner", where=path, remedy="Give a checkpoint of mlcl or CLIP4Cir")
