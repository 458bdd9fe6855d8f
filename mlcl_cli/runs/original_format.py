"""The original code's `.pt` format, in and out, with a FILE.json beside FILE.pt for what it cannot hold."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from mlcl_cli.atomic_files import to_json, write_files
from mlcl_cli.errors import DataError
from mlcl_cli.models.combiner import FIXED_TEMPERATURE, LEVELS, Combiner, is_combiner_state
from mlcl_cli.models.torch_files import read_torch_file
from mlcl_cli.models.weights import fingerprint, require_openai_layout, require_weights
from mlcl_cli.runs.description import CheckpointDescription, Kind

KEYS = {Kind.CLIP: "CLIP", Kind.COMBINER: "Combiner"}
FORMAT = "mlcl export 1"
# Enough to rank as before the export and to find the CLIP of a combiner; nothing about the machine or its folders.
EXPORTED = (
    "kind", "fingerprint", "epoch", "architecture", "clip", "image", "dataset", "protocol", "pruned", "encoder", "seed",
    "selected_by", "score", "probe",
)  # fmt: skip


def read_original(path: Path) -> tuple[Mapping[str, Tensor], CheckpointDescription]:
    """Read `{"epoch": int, "CLIP" or "Combiner": state dict}` or a plain state dict, and FILE.json if it exists.

    Raises DataError for a file that is damaged or foreign, and for a FILE.json that belongs to other weights.
    """
    content = read_torch_file(path)
    if not isinstance(content, dict) or not content:
        raise DataError("contains neither a CLIP nor a combiner", where=path, remedy="Use a checkpoint file")
    epoch = content.get("epoch", 0)
    for kind, key in KEYS.items():
        if isinstance(content.get(key), dict):
            state = require_weights(content[key], path)
            return state, _description(path, kind, state, epoch if type(epoch) is int and epoch > 0 else 0)
    require_openai_layout(content, path)
    state = require_weights(content, path)
    return state, _description(path, Kind.COMBINER if is_combiner_state(state) else Kind.CLIP, state, 0)


def write_original(path: Path, state: Mapping[str, Tensor], about: CheckpointDescription) -> list[str]:
    """Write `torch.save({"epoch": int, "CLIP" or "Combiner": state dict})` and FILE.json; both, or neither.

    Adds weights that the original's strict load expects and that change no metric. Returns warnings about these, and
    about what the original code will do differently.
    """
    exported = dict(state)
    warnings = _add_expected_weights(exported, about, path) if about.kind is Kind.COMBINER else []
    fields = about.model_dump(mode="json", include=set(EXPORTED), exclude_none=True)
    text = to_json({"format": FORMAT, **fields, "fingerprint": fingerprint(exported)}, indent=2)
    content = {"epoch": about.epoch, KEYS[about.kind]: exported}
    write_files({path: lambda staged: torch.save(content, staged), path.with_suffix(".json"): text})
    return warnings


def _add_expected_weights(state: dict[str, Tensor], about: CheckpointDescription, path: Path) -> list[str]:
    """Add what the original's strict load expects of a combiner to `state`, and return warnings."""
    warnings = []
    implied = Combiner.from_state(state).architecture.levels
    if "loss_weight" in state:
        if "logit_scale" in state and "logit_scale_sl" not in state:
            state["logit_scale_sl"] = torch.full((1,), math.log(FIXED_TEMPERATURE))
            warnings.append(
                "logit_scale_sl is added at its initial value: the original code expects it. Ranks are the same"
            )
    elif "combiner_proj.weight" in state or "logit_scale" in state:
        warnings.append("The original code cannot load it: use levels cat and hybrid, or hybrid at a fixed temperature")
    if about.architecture is not None and set(about.architecture.levels) != set(implied):
        groups = (about.architecture.levels, implied)
        trained, ranked = (", ".join(level for level in LEVELS if level in group) for group in groups)
        warnings.append(
            f"The original code will rank with the levels {ranked}; this combiner was trained with {trained}. "
            f"Only mlcl reads them from {path.stem}.json"
        )
    return warnings


def _description(path: Path, kind: Kind, state: Mapping[str, Tensor], epoch: int) -> CheckpointDescription:
    """The content of FILE.json; if there is none, or another program wrote it, what the weights alone show."""
    json_file = path.with_suffix(".json")
    known = CheckpointDescription(kind=kind, fingerprint=fingerprint(state), epoch=epoch)
    if not json_file.is_file():
        return known
    remedy = f"Export the checkpoint again, or move {json_file.name} away to read {path.name} without it"
    try:
        with json_file.open("rb") as file:
            content = file.read(2**20 + 1)
        fields = json.loads(content) if len(content) <= 2**20 else None
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            return known
        described = CheckpointDescription.model_validate({key: fields[key] for key in EXPORTED if key in fields})
    except (OSError, ValueError, RecursionError) as error:
        reason = "its fields differ from the exported ones" if isinstance(error, ValidationError) else str(error)
        raise DataError(f"cannot be read ({reason})", where=json_file, remedy=remedy) from error
    if (described.kind, described.fingerprint) != (kind, known.fingerprint):
        what = f"describes a {described.kind} {described.fingerprint}, "
        what += f"and {path} holds the {kind} {known.fingerprint}"
        raise DataError(what, where=json_file, remedy=remedy)
    return described
