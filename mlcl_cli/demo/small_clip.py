"""A small CLIP for the demo's catalogue: OpenAI's own class, trained contrastively on its training pictures."""

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mlcl_cli.demo.catalogue import Described
from mlcl_cli.files import write_file
from mlcl_cli.reporting import Reporter
from mlcl_cli.seeds import generator_of, seed_of

SIZE = 64
SIZES = {
    "embed_dim": 64,
    "image_resolution": SIZE,
    "vision_layers": 3,
    "vision_width": 128,
    "vision_patch_size": 16,
    "context_length": 77,
    "vocab_size": 49408,
    "transformer_width": 64,
    "transformer_heads": 1,
    "transformer_layers": 2,
}
BATCH = 128
EPOCHS = 24
WHOLE_SHARE = 0.6


def train_small_clip(
    pictures: Sequence[Described],
    output: Path,
    *,
    load: Callable[[Path], Tensor],
    reporter: Reporter,
    seed: int = 0,
    epochs: int = EPOCHS,
) -> None:
    """Trains on `pictures` and saves a plain state dict, as OpenAI's files are.

    `load` gives a picture as CLIP sees it, normalised fp32 (3, 64, 64). Descriptions are whole sentences, or single
    attributes, which modifiers are made of.
    """
    pixels = torch.stack([load(picture.path) for picture in pictures])
    texts, first = _texts(pictures)
    tokens = _clip_module().tokenize(texts, truncate=True)
    torch.manual_seed(seed_of(seed, "small clip"))
    network: Any = _clip_module().model.CLIP(**SIZES)
    rates = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    steps = epochs * (len(pictures) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(rates, 2e-3, total_steps=steps, pct_start=0.15)
    with reporter.bar("Training a small CLIP", epochs) as advance:
        for epoch in range(epochs):
            draw = generator_of(seed, "small clip", epoch)
            order = torch.randperm(len(pictures), generator=draw)
            chosen = _drawn(first, draw)
            losses = []
            for rows in order.split(BATCH)[: len(pictures) // BATCH]:
                loss = _loss(network, pixels[rows], tokens[chosen[rows]])
                rates.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                rates.step()
                schedule.step()
                network.logit_scale.data.clamp_(max=math.log(50))
                losses.append(float(loss.detach()))
            advance(1, f"loss {sum(losses) / len(losses):.3f}")
    write_file(output, lambda path: torch.save(network.state_dict(), path))


def _texts(pictures: Sequence[Described]) -> tuple[list[str], list[list[int]]]:
    """The distinct texts, and for each picture the rows of its own: whole first, then its parts."""
    rows: dict[str, int] = {}
    own = [[rows.setdefault(text, len(rows)) for text in (picture.whole, *picture.parts)] for picture in pictures]
    return list(rows), own


def _drawn(own: list[list[int]], draw: torch.Generator) -> Tensor:
    chance = torch.rand(len(own), 2, generator=draw).tolist()
    return torch.tensor(
        [
            rows[0] if whole < WHOLE_SHARE else rows[1 + int(part * (len(rows) - 1))]
            for rows, (whole, part) in zip(own, chance, strict=True)
        ]
    )


def _loss(network: Any, pixels: Tensor, tokens: Tensor) -> Tensor:
    """CLIP's symmetric loss; pictures that drew the same text are each other's positives, too."""
    longest = int(tokens.argmax(dim=1).max()) + 1
    images = normalize(network.encode_image(pixels), dim=-1)
    texts = normalize(network.encode_text(tokens[:, :longest]), dim=-1)
    scores = network.logit_scale.exp() * images @ texts.T
    same = (tokens[:, None] == tokens[None]).all(dim=-1).float()
    goal = same / same.sum(dim=1, keepdim=True)
    return (cross_entropy(scores, goal) + cross_entropy(scores.T, goal)) / 2


def _clip_module() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
        import clip
    return clip
