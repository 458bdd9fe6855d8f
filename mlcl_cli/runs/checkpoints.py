"""Checkpoints that carry their own description. The original code's format is in `original_format`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlcl_cli.artifacts import (
    DESCRIPTION,
    Artifact,
    Description,
    Metadata,
    OlderReader,
    Tensors,
    damage_named,
    read_metadata,
)
from mlcl_cli.errors import DataError
from mlcl_cli.models.probe import TOLERANCE, distance, is_clip, make_probe
from mlcl_cli.models.weights import fingerprint
from mlcl_cli.runs.description import CheckpointDescription, Kind, TrainingDescription
from mlcl_cli.runs.original_format import read_original
from mlcl_cli.runs.training_state import FORMATS as STATE_FORMATS
from mlcl_cli.runs.training_state import OLDER_FORMATS as OLDER_STATES
from mlcl_cli.runs.training_state import state_of

FORMAT = "mlcl checkpoint 2"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a CLIP or a combiner, and what is known about them."""

    path: Path
    state: Tensors
    about: CheckpointDescription

    @property
    def kind(self) -> Kind:
        """The network that the weights belong to."""
        return self.about.kind


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
    known = {key: value for key, value in fields.items() if value is not None}
    Artifact.save(path, FORMAT, training.model_dump(mode="json", exclude_unset=True) | known, state)


def load_checkpoint(path: Path, kind: Kind | None = None) -> Checkpoint:
    """Read a checkpoint, of `kind` if given: a file of mlcl, or a `.pt` of the original code.

    Raises DataError for a file that is missing, damaged, foreign, or of the other kind.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"this checkpoint {problem}", where=path, remedy="Give the path of a checkpoint file")
    if _is_safetensors(path):
        checkpoint = _of_artifact(*Artifact.load(path, {**OLDER_FORMATS, **OLDER_STATES}))
    else:
        checkpoint = Checkpoint(path, *read_original(path))
    if kind is not None and checkpoint.kind != kind:
        raise DataError(
            f"is a checkpoint of a {checkpoint.kind}, not of a {kind}",
            where=path,
            remedy="A tuned CLIP goes to clip.checkpoint, a combiner to --checkpoint",
        )
    return checkpoint


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint in a checkpoint's description, without reading its weights; None in any other file."""
    try:
        metadata = read_metadata(path)
        is_older = metadata.get("format") in OLDER_FORMATS
        value = (_description_1(metadata) if is_older else Artifact.open(path).description)["fingerprint"]
    except (OSError, DataError, KeyError, ValueError):
        return None
    return value if isinstance(value, str) else None


def require_probe(checkpoint: Checkpoint) -> None:
    """Encode the probe of a tuned CLIP again; a checkpoint without a probe passes.

    Raises DataError where the features differ from those at the time of saving: other code computes something else.
    """
    stored = checkpoint.about.probe
    if checkpoint.kind is not Kind.CLIP or stored is None:
        return
    try:
        off = distance(make_probe(checkpoint.state), {"image": stored.image, "text": stored.text})
    except (ValueError, RuntimeError) as error:
        raise DataError("its probe cannot be read", where=checkpoint.path, remedy="Use another checkpoint") from error
    if not off <= TOLERANCE:
        raise DataError(
            f"encodes its probe differently than when it was saved (off by {off:.2g} of its length)",
            where=checkpoint.path,
            remedy="Compare the versions of torch and clip with those in its run.json; its metrics would differ",
        )


def _is_safetensors(path: Path) -> bool:
    """Decided by content: eight bytes of header length, then a JSON object. A `.pt` file is a zip archive."""
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == SUFFIX or head[8:] == b"{"


def _of_artifact(artifact: Artifact, tensors: Tensors) -> Checkpoint:
    """A checkpoint, or the weights of a training state."""
    description = artifact.description
    if artifact.format in STATE_FORMATS:
        state, about = state_of(artifact, tensors)
        tensors = state.weights
        description = {**about, "epoch": state.epoch, "fingerprint": fingerprint(tensors)}
    with damage_named(artifact.path):
        if artifact.format not in FORMATS:
            raise ValueError("it holds no checkpoint")
        return Checkpoint(artifact.path, tensors, CheckpointDescription.model_validate(description))


def _description_1(metadata: Metadata) -> Description:
    text = metadata["about"]
    if metadata["checksum"] != hashlib.sha256(text.encode()).hexdigest():
        raise ValueError("its description does not match its checksum")
    return DESCRIPTION.validate_json(text)


def _read_format_1(metadata: Metadata, tensors: Tensors) -> tuple[Description, Tensors]:
    description = _description_1(metadata)
    if description["fingerprint"] != fingerprint(tensors):
        raise ValueError("its weights do not match their fingerprint")
    return description, tensors


OLDER_FORMATS: Mapping[str, OlderReader] = {"mlcl checkpoint 1": _read_format_1}
FORMATS = (FORMAT, *OLDER_FORMATS, *STATE_FORMATS)
