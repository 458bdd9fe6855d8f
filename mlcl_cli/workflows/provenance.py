"""What makes a figure traceable: versions, a digest of the data, and what else it depends on besides the weights."""

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import PIL
import torch

from mlcl_cli import __version__
from mlcl_cli.atomic_files import to_json
from mlcl_cli.data.records import Split


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What figures depend on besides the weights: fields of every result that has figures.

    `data` is the digest of one split, or of each split by name. `inference_weights` is None without a combiner.
    """

    device: str
    precision: str
    inference_weights: str | None
    image: Mapping[str, str | float]
    data: str | Mapping[str, str]


def data_digest(split: Split) -> str:
    """Sixteen hex digits for a split's annotations: its triplets and gallery names, not its image files."""
    sets = [
        [part.name, [(t.reference, t.target, t.captions, t.pair_id, t.members) for t in part.triplets], part.gallery]
        for part in split.sets
    ]
    digest = hashlib.sha256(to_json([split.dataset, split.name, sets]))
    if several := [triplet.other_targets for triplet in split.triplets if triplet.other_targets]:
        digest.update(to_json(several))
    return digest.hexdigest()[:16]


@cache
def versions() -> dict[str, str]:
    """Versions of what affects the figures, with the commit if mlcl runs from a checkout."""
    return {
        "mlcl": __version__,
        "torch": torch.__version__,
        "Pillow": PIL.__version__,
        "python": platform.python_version(),
        **_commit(),
    }


def _commit() -> dict[str, str]:
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return {}
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": output.strip()}
