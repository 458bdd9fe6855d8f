"""A small CLIP for the demo's catalog: OpenAI's own class, trained contrastively on the catalogue's training part."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from mlcl_cli.atomic_files import write_file
from mlcl_cli.demo.catalog import Described
from mlcl_cli.models.weights import import_clip
from mlcl_cli.progress import Progress
from mlcl_cli.seeding import derive_generator, derive_seed

SIZE = 64
SIZES = {
    "embed_dim": 64,
    "image_resolution": SIZE,
    "vision_layers": (1, 1, 1, 1),
    "vision_width": 8,
    "vision_patch_size": None,
    "context_length": 77,
    "vocab_size": 49408,
    "transformer_width": 64,
    "transformer_heads": 1,
    "transformer_layers": 2,
}
BATCH = 128
EPOCHS = 13
RATE = 2e-3
WHOLE = 0.6  # how often a picture goes with its whole description; else with a phrase or two
HOTTEST = math.log(50)


def train_small_clip(
    pictures: Sequence[Described],
    output: Path,
    *,
    load: Callable[[Path], Tensor],
    progress: Progress,
    seed: int = 0,
    epochs: int = EPOCHS,
) -> None:
    """Trains on `pictures` and writes a plain state dict, whose shapes tell the sizes as OpenAI's do.

    `load` gives a picture as CLIP sees it: normalized, fp32, (3, 64, 64). Raises MachineError where `output` cannot
    be written.
    """
    pixels = torch.stack([load(picture.path) for picture in pictures]).contiguous(memory_format=torch.channels_last)
    clip = import_clip()
    torch.manual_seed(derive_seed(seed, "small clip"))
    network: Any = clip.model.CLIP(**SIZES)
    network.visual.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05, fused=True)
    steps = max(1, len(pictures) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * steps, pct_start=0.15)
    with progress.bar("Training a small CLIP", epochs) as advance:
        for epoch in range(epochs):
            draw = derive_generator(seed, "small clip", epoch)
            order = torch.randperm(len(pictures), generator=draw)
            tokens = clip.tokenize([_text(picture, draw) for picture in pictures])
            for rows in order.split(BATCH)[:steps]:
                loss = _loss(network, pixels[rows], tokens[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                with torch.no_grad():
                    network.logit_scale.clamp_(max=HOTTEST)
            advance(1, f"loss {float(loss.detach()):.2f}")
    write_file(output, lambda path: torch.save(network.state_dict(), path))


def _text(picture: Described, draw: torch.Generator) -> str:
    whole, first, second = torch.rand(3, generator=draw).tolist()
    if whole < WHOLE:
        return picture.whole
    parts = list(picture.parts)
    one = parts.pop(int(first * len(parts)))
    # Half of the phrases are alone.
    return one if second < 0.5 else f"{one} and {parts[int((2 * second - 1) * len(parts))]}"


def _loss(network: Any, pixels: Tensor, tokens: Tensor) -> Tensor:
    """CLIP's symmetric loss over a batch; pictures with equal texts are each other's positives, too."""
    longest = int(tokens.argmax(dim=1).max()) + 1
    images = normalize(network.encode_image(pixels), dim=-1)
    texts = normalize(network.encode_text(tokens[:, :longest]), dim=-1)
    scores = network.logit_scale.exp() * images @ texts.T
    same = (tokens[:, None] == tokens[None]).all(dim=-1).float()
    goal = same / same.sum(dim=1, keepdim=True)
    return (cross_entropy(scores, goal) + cross_entropy(scores.T, goal)) / 2
