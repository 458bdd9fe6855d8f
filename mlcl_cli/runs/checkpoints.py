"""Checkpoints that carry their own description, in safetensors; `originals` has the original code's format."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mlcl_cli.atomic_files import write_tensors
from mlcl_cli.errors import DataError
from mlcl_cli.models.probe import TOLERANCE, distance, is_clip, make_probe
from mlcl_cli.models.weights import fingerprint
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.original_format import read_original
from mlcl_cli.runs.training_state import FORMAT as STATE_FORMAT
from mlcl_cli.runs.training_state import load_state
from mlcl_cli.safe_reading import parse_json

FORMAT = "mlcl checkpoint 1"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a CLIP or a combiner. `about` is its description; an original file may have an epoch alone."""

    path: Path
    kind: Kind
    state: dict[str, Tensor]
    about: Mapping[str, Any]


def save_checkpoint(path: Path, kind: Kind, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes a checkpoint whole or not at all; what was at `path` before stays until the new one is safe.

    A CLIP carries a probe: the features of a fixed picture and caption, which `require_probe` encodes again.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    probe = {"probe": make_probe(tensors)} if kind == "clip" and is_clip(tensors) else {}
    description = {"kind": kind, "fingerprint": fingerprint(tensors), **probe, **about}
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
    checkpoint = _load_own(path) if _is_safetensors(path) else Checkpoint(path, *read_original(path))
    if kind is not None and checkpoint.kind != kind:
        raise DataError(
            f"is a checkpoint of a {checkpoint.kind}, not of a {kind}",
            where=path,
            remedy="A tuned CLIP goes to clip.checkpoint, a combiner to --checkpoint",
        )
    return checkpoint


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint in the header of a checkpoint, without its weights; None in any other kind of file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        found = json.loads(metadata["about"])["fingerprint"] if metadata.get("format") == FORMAT else None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def require_probe(checkpoint: Checkpoint) -> None:
    """Encodes the probe that a tuned CLIP carries again; what carries none passes.

    Raises DataError where the features differ from those at the time of saving: other code computes something else.
    """
    stored = checkpoint.about.get("probe")
    if checkpoint.kind != "clip" or stored is None:
        return
    try:
        off = distance(make_probe(checkpoint.state), stored)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError("its probe cannot be read", where=checkpoint.path, remedy="Use another checkpoint") from error
    if not off <= TOLERANCE:
        raise DataError(
            f"encodes its probe differently than when it was saved (off by {off:.2g} of its length)",
            where=checkpoint.path,
            remedy="Compare the versions of torch and clip with those in its run.json; figures would not be its own",
        )


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
