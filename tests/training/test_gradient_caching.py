"""Gradient caching and gradient checkpointing change the memory of a step, not its gradients."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from world import picture, tiny_clip

from mlcl_cli.images.image_cache import ImageCache
from mlcl_cli.images.transforms import Transform
from mlcl_cli.models.compute import choose_compute
from mlcl_cli.models.encoder import Encoder, tokenize
from mlcl_cli.models.weights import load_clip
from mlcl_cli.training.feature_sources import ImageEncoderSource, TextEncoderSource
from mlcl_cli.training.objectives import FinetuneObjective, finetune_optimizer
from mlcl_cli.training.triplet_rows import TripletRows

CAPTIONS = tuple("is red " * (1 + number % 7) + str(number) for number in range(40))
RESNET = {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "vision_patch_size": None}


def step(
    folder: Path, clip: Path, chunk_size: int | None, *, checkpoint_blocks: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    encoder = Encoder(load_clip(clip), choose_compute("cpu", "fp32"))
    finetune_optimizer(encoder, ("text", "image"), 1e-3)
    if checkpoint_blocks:
        encoder.checkpoint_blocks()
    files = [(str(seed), picture(folder / f"{seed}.png", seed)) for seed in range(20)]
    names = tuple(name for name, _ in files)
    draw = torch.Generator().manual_seed(0)
    references, targets = torch.randint(20, (2, 40), generator=draw)
    triplets = TripletRows(names, CAPTIONS, references, targets, torch.arange(40)[:, None])
    images = ImageEncoderSource(
        encoder, ImageCache(files, Transform("targetpad", 1.25, encoder.size), 2), names, chunk_size
    )
    texts = TextEncoderSource(encoder, tokenize(CAPTIONS, encoder.context_length, torch.device("cpu")), chunk_size)
    objective = FinetuneObjective(encoder, triplets, images, texts)
    rows = torch.randperm(40, generator=draw)[:32]
    (loss,) = objective.losses(objective.prepare(rows, rows, 1)).values()
    loss.backward()
    return loss.detach(), {
        name: weight.grad for name, weight in encoder.clip.named_parameters() if weight.grad is not None
    }


# The features of an untrained ResNet nearly coincide, which amplifies fp32 rounding.
@pytest.mark.parametrize(("sizes", "tolerance"), [({}, 1e-5), (RESNET, 1e-3)], ids=["vit", "resnet"])
@pytest.mark.parametrize(
    ("chunk_size", "checkpoint_blocks"), [(1, False), (5, False), (100, False), (None, True), (5, True)]
)
def test_gradients_equal_those_of_one_batch(
    tmp_path: Path, sizes: dict[str, object], tolerance: float, chunk_size: int | None, checkpoint_blocks: bool
) -> None:
    clip = tiny_clip(tmp_path / "clip.pt", **sizes)
    loss, expected = step(tmp_path, clip, None, checkpoint_blocks=False)
    other, gradients = step(tmp_path, clip, chunk_size, checkpoint_blocks=checkpoint_blocks)
    torch.testing.assert_close(other, loss, rtol=1e-6, atol=0)
    assert gradients.keys() == expected.keys()
    assert len(gradients) > 20
    negligible = 1e-7 * max(float(gradient.norm()) for gradient in expected.values())  # a key's bias has no gradient
    for name, gradient in expected.items():
        assert (gradients[name] - gradient).norm() <= tolerance * gradient.norm() + negligible, name


def test_cached_forward_pass_keeps_only_the_tokens_for_the_backward_pass(tmp_path: Path) -> None:
    kept = {}
    for chunk_size in (None, 4):
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel() * tensor.element_size()
            return tensor

        encoder = Encoder(load_clip(tiny_clip(tmp_path / "clip.pt")), choose_compute("cpu", "fp32"))
        finetune_optimizer(encoder, ("text",), 1e-3)
        texts = TextEncoderSource(encoder, tokenize(CAPTIONS, encoder.context_length, torch.device("cpu")), chunk_size)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            texts.prepare(torch.arange(32))()
        kept[chunk_size] = total
    assert kept[4] < kept[None] / 20
