"""A small CLIP for the demo: OpenAI's own class, trained contrastively on the catalog's training images."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from mlcl_cli.atomic_files import write_file
from mlcl_cli.demo.catalog import TrainingImage
from mlcl_cli.models.weights import import_clip
from mlcl_cli.progress import Progress
from mlcl_cli.seeding import derive_generator, derive_seed

SIZE = 64
ARCHITECTURE = {
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
BATCH_SIZE = 128
EPOCHS = 13
LEARNING_RATE = 2e-3
DESCRIPTION_SHARE = 0.6  # how often an image goes with its description, and not with a phrase or two
MAX_LOGIT_SCALE = math.log(50)


def train_small_clip(
    images: Sequence[TrainingImage],
    output: Path,
    *,
    load: Callable[[Path], Tensor],
    progress: Progress,
    epochs: int = EPOCHS,
) -> None:
    """Train on `images` and write a plain state dict, whose shapes tell the architecture as OpenAI's do.

    The loss is CLIP's; images with equal texts are each other's positives, too. `load` returns an image as CLIP sees
    it: normalized, fp32, (3, 64, 64). Raises MachineError if `output` cannot be written.
    """
    pixels = torch.stack([load(image.path) for image in images]).contiguous(memory_format=torch.channels_last)
    clip = import_clip()
    torch.manual_seed(derive_seed(0, "small clip"))
    network = clip.model.CLIP(**ARCHITECTURE)
    network.visual.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.05, fused=True)
    steps = max(1, len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * steps, pct_start=0.15)
    with progress.bar("Training a small CLIP", epochs) as advance:
        for epoch in range(epochs):
            draw = derive_generator(0, "small clip", epoch)
            order = torch.randperm(len(images), generator=draw)
            tokens = clip.tokenize([_text(image, draw) for image in images])
            for rows in order.split(BATCH_SIZE)[:steps]:
                batch = tokens[rows][:, : int(tokens[rows].argmax(dim=1).max()) + 1]
                image_features = normalize(network.encode_image(pixels[rows]), dim=-1)
                text_features = normalize(network.encode_text(batch), dim=-1)
                scores = network.logit_scale.exp() * image_features @ text_features.T
                same = (batch[:, None] == batch[None]).all(dim=-1).float()
                goal = same / same.sum(dim=1, keepdim=True)
                loss = (cross_entropy(scores, goal) + cross_entropy(scores.T, goal)) / 2
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                network.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)
            advance(1, f"loss {float(loss.detach()):.2f}")
    write_file(output, lambda path: torch.save(network.state_dict(), path))


def _text(image: TrainingImage, draw: torch.Generator) -> str:
    share, first, second = torch.rand(3, generator=draw).tolist()
    if share < DESCRIPTION_SHARE:
        return image.description
    phrases = list(image.phrases)
    phrase = phrases.pop(int(first * len(phrases)))
    # Half of the texts have one phrase.
    return phrase if second < 0.5 else f"{phrase} and {phrases[int((2 * second - 1) * len(phrases))]}"
