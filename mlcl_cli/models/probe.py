"""A fixed image and caption encoded by a CLIP: shows whether its weights still compute the same features."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mlcl_cli.models.weights import State, build_clip, import_clip

CAPTION = "is red and has long sleeves"
COMPONENTS = 16
# Measured: another activation moves a feature by 1e-2 of its length, another processor by 1e-5.
TOLERANCE = 1e-3


def is_clip(state: State) -> bool:
    """Whether these are the weights of a whole CLIP, by their names."""
    return {"text_projection", "token_embedding.weight", "visual.conv1.weight"} <= set(state)


@torch.no_grad()
def make_probe(state: State) -> dict[str, list[float]]:
    """The first 16 components of the probe's raw image and text features, fp32 on the CPU, to five digits."""
    network: Any = build_clip(state, "the probe")
    size = int(network.visual.input_resolution)
    row, column, channel = torch.arange(size)[:, None], torch.arange(size), torch.arange(3)[:, None, None]
    pixels = ((7 * row + 13 * column + row * column + 29 * channel) % 64) / 31.5 - 1
    tokens = import_clip().tokenize([CAPTION], context_length=int(network.context_length), truncate=True)
    features = {"image": network.encode_image(pixels[None]), "text": network.encode_text(tokens)}
    return {
        tower: [float(f"{number:.5g}") for number in feature[0, :COMPONENTS].tolist()]
        for tower, feature in features.items()
    }


def distance(measured: Mapping[str, Sequence[float]], stored: Mapping[str, Sequence[float]]) -> float:
    """The larger of both features' relative distances, ‖measured − stored‖ / ‖stored‖."""
    pairs = [(torch.tensor(measured[tower]), torch.tensor(stored[tower])) for tower in ("image", "text")]
    # The bound keeps a feature of zeros from dividing by zero.
    return max(float((now - then).norm() / then.norm().clamp(min=1e-12)) for now, then in pairs)
