"""The original code's `.pt` format, in and out, with a FILE.json beside FILE.pt for what it cannot hold."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from mlcl_cli.atomic_files import to_json, write_files
from mlcl_cli.errors import DataError
from mlcl_cli.models.combiner import FIXED_TEMPERATURE, LEVELS, Combiner, Level, is_combiner_state
from mlcl_cli.models.layouts import require_openai_layout
from mlcl_cli.models.weights import fingerprint, read_torch_file, require_weights
from mlcl_cli.runs.description import Kind

KEYS: dict[Kind, str] = {Kind.CLIP: "CLIP", Kind.COMBINER: "Combiner"}
FORMAT = "mlcl export 1"
MAX_DESCRIPTION = 2**20


class Original(NamedTuple):
    """Weights in the original's names, and what is known about them."""

    kind: Kind
    state: dict[str, Tensor]
    about: dict[str, Any]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _Architecture(_Model):
    levels: list[Level]


class _Clip(_Model):
    model: str
    checkpoint: str | None = None
    fingerprint: str
    base: str | None = None
    tuned: list[Literal["text", "image"]] | None = None


class _Image(_Model):
    transform: str
    target_ratio: float


class _Probe(_Model):
    image: list[float]
    text: list[float]


class Description(_Model):
    """What FILE.json says of FILE.pt: enough to rank as before the export, and to find the CLIP it belongs to."""

    format: Literal["mlcl export 1"]
    kind: Annotated[Kind, Field(strict=False)]
    fingerprint: str
    epoch: int = 0
    architecture: _Architecture | None = None
    clip: _Clip | None = None
    image: _Image | None = None
    dataset: str | None = None
    protocol: str | None = None
    encoder: str | None = None
    seed: int | None = None
    selected_by: str | None = None
    score: float | None = None
    probe: _Probe | None = None


class Export(NamedTuple):
    """What was written, and how the original code will differ."""

    files: tuple[Path, Path]
    warnings: tuple[str, ...]


def description_path(path: Path) -> Path:
    """FILE.json for FILE.pt."""
    return path.with_suffix(".json")


def read_original(path: Path) -> Original:
    """Reads `{"epoch": int, "CLIP" or "Combiner": state dict}` or a plain state dict, and FILE.json where there is one.

    Raises DataError for a file that is damaged or foreign, and for a FILE.json that belongs to other weights.
    """
    content = read_torch_file(path)
    if not isinstance(content, dict) or not content:
        raise DataError("holds neither a CLIP nor a combiner", where=path, remedy="Give a checkpoint file")
    for kind, key in KEYS.items():
        if isinstance(content.get(key), dict):
            state, epoch = require_weights(content[key], path), content.get("epoch", 0)
            about = {"epoch": epoch if type(epoch) is int else 0}
            return Original(kind, state, about | _described(path, kind, state))
    require_openai_layout(content, path)
    state = require_weights(content, path)
    kind = Kind.COMBINER if is_combiner_state(state) else Kind.CLIP
    return Original(kind, state, _described(path, kind, state))


def write_original(path: Path, kind: Kind, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> Export:
    """Writes `torch.save({"epoch": int, "CLIP" or "Combiner": state dict})` and FILE.json; both, or neither.

    Weights that the original's strict load expects and that change no figure are added; the warnings say so.
    """
    own, warnings = dict(state), list[str]()
    if kind == "combiner":
        architecture: Mapping[str, Any] = about.get("architecture") or {}
        own, warnings = _completed(state, architecture.get("levels"), path)
    known = {key: value for key, value in about.items() if key in Description.model_fields and value is not None}
    described = known | {"format": FORMAT, "kind": kind, "fingerprint": fingerprint(own)}
    try:
        description = Description.model_validate(described)
    except ValidationError as error:
        what = f"its description is invalid: {error.errors()[0]['loc']}"
        raise DataError(what, where=path, remedy="Use another checkpoint") from error
    text = to_json(_told(description), indent=2)
    content = {"epoch": int(about.get("epoch", 0)), KEYS[kind]: own}
    beside = description_path(path)
    write_files({path: lambda stage: torch.save(content, stage), beside: text})
    return Export((path, beside), tuple(warnings))


def _completed(
    state: Mapping[str, Tensor], levels: list[Level] | None, path: Path
) -> tuple[dict[str, Tensor], list[str]]:
    own, warnings = dict(state), []
    whole = "loss_weight" in own
    if whole and "logit_scale" in own and "logit_scale_sl" not in own:
        own["logit_scale_sl"] = torch.full((1,), math.log(FIXED_TEMPERATURE))
        warnings.append(
            "logit_scale_sl is added at its initial value: the original code expects it. Ranks are the same"
        )
    if not whole and ("combiner_proj.weight" in own or "logit_scale" in own):
        warnings.append(
            "The original code cannot load it: its combiner has both levels, or hybrid at a fixed temperature"
        )
    implied = Combiner.from_state(state).architecture.levels
    if levels is not None and set(levels) != set(implied):
        trained, ranked = (", ".join(level for level in LEVELS if level in some) for some in (levels, implied))
        warnings.append(
            f"The original code will rank with the levels {ranked}; this combiner was trained with {trained}. "
            f"Only mlcl reads them from {description_path(path).name}"
        )
    return own, warnings


def _described(path: Path, kind: Kind, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The description beside `path`; empty where there is none. A JSON file of something else is left alone."""
    beside = description_path(path)
    if not beside.is_file():
        return {}
    remedy = f"Export the checkpoint again, or move {beside.name} away to read {path.name} without it"
    try:
        with beside.open("rb") as file:
            raw = file.read(MAX_DESCRIPTION + 1)
        told = json.loads(raw) if len(raw) <= MAX_DESCRIPTION else None
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            return {}
        description = Description.model_validate(told)
    except (OSError, ValueError, RecursionError) as error:
        reason = "its fields are not as exported" if isinstance(error, ValidationError) else str(error)
        raise DataError(f"cannot be read ({reason})", where=beside, remedy=remedy) from error
    own = fingerprint(state)
    if (description.kind, description.fingerprint) != (kind, own):
        what = f"describes a {description.kind} {description.fingerprint}, and {path} holds the {kind} {own}"
        raise DataError(what, where=beside, remedy=remedy)
    return {key: value for key, value in _told(description).items() if key != "format"}


def _told(description: Description) -> dict[str, Any]:
    return {key: value for key, value in description.model_dump(mode="json").items() if value is not None}
