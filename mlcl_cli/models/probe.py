"""A fixed picture and caption encoded by given weights: shows whether they still compute what they computed."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlcl_cli.models.weights import State, build_clip, import_clip

CAPTION = "is red and has long sleeves"
NUMBERS = 16
TOLERANCE = 1e-3  # another activation moves a feature by 1e-2 of its length, another processor by 1e-5

Probe = Mapping[str, Sequence[float]]


def is_clip(state: State) -> bool:
    """Whether these are a whole CLIP's weights, by name."""
    return {"text_projection", "token_embedding.weight", "visual.conv1.weight"} <= set(state)


def make_probe(state: State) -> dict[str, list[float]]:
    """The first 16 numbers of the raw image and text feature of the probe, fp32 on the CPU, five digits each."""
    image, text = _features(build_clip(state, "the probe"))
    return {"image": _rounded(image), "text": _rounded(text)}


def distance(measured: Probe, stored: Probe) -> float:
    """The larger of both features' relative distances, ‖measured − stored‖ / ‖stored‖."""
    pairs = [(torch.tensor(measured[side]), torch.tensor(stored[side])) for side in ("image", "text")]
    return max(float((own - kept).norm() / kept.norm().clamp(min=1e-12)) for own, kept in pairs)


@torch.no_grad()
def _features(network: Any) -> tuple[Tensor, Tensor]:
    size = int(network.visual.input_resolution)
    row, column, channel = torch.arange(size)[:, None], torch.arange(size), torch.arange(3)[:, None, None]
    pixels = ((7 * row + 13 * column + row * column + 29 * channel) % 64) / 31.5 - 1
    tokens = import_clip().tokenize([CAPTION], context_length=int(network.context_length), truncate=True)
    return network.encode_image(pixels[None]), network.encode_text(tokens)


def _rounded(feature: Tensor) -> list[float]:
    return [float(f"{number:.5g}") for number in feature[0, :NUMBERS].tolist()]
