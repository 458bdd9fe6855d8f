"""Transforms equal the original implementation's tensors; augmented views follow METHOD.md, Section 7.2."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional as tv

from mlcl_cli.images.augment import JITTERS, SYMMETRIES, Augmentation, autocontrast, draw_crop, random_crop
from mlcl_cli.images.transforms import MEAN, STD, Transform, preprocess_pixels

GOLDEN = np.load(Path(__file__).parents[1] / "golden/images/expected.npz")


@pytest.mark.parametrize("key", sorted(GOLDEN))
def test_transforms_equal_the_original(golden: Path, key: str) -> None:
    kind, name = key.split("/")
    with Image.open(golden / "images" / name) as image:
        pixels = Transform(kind, 1.25, 48)(image)  # type: ignore[arg-type]
    torch.testing.assert_close(preprocess_pixels(pixels[None])[0], torch.from_numpy(GOLDEN[key]), rtol=0, atol=1e-6)


def test_symmetries_are_the_eight_of_a_square() -> None:
    corner = torch.arange(9.0).reshape(1, 1, 3, 3)
    images = {tuple(apply(corner).flatten().tolist()) for apply in SYMMETRIES}
    assert len(images) == 8
    assert tuple(tv.vflip(corner).flatten().tolist()) in images


def test_view_depends_only_on_image_and_seed() -> None:
    crops = torch.randint(0, 256, (16, 3, 24, 24), dtype=torch.uint8)
    augment = Augmentation()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = augment(crops, 1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(augment(crops, 1), first)
    assert not torch.equal(augment(crops, 2), first)
    assert first.isfinite().all()


def test_images_of_a_batch_get_different_views() -> None:
    crops = torch.randint(0, 256, (1, 3, 24, 24), dtype=torch.uint8).expand(64, -1, -1, -1)
    views = Augmentation()(crops, 3)
    assert len({tuple(view.flatten().tolist()) for view in views}) > 50


def test_half_of_all_views_are_gray() -> None:
    crops = torch.randint(0, 256, (2000, 3, 6, 6), dtype=torch.uint8)
    views = Augmentation()(crops, 0) * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    gray = (views.max(dim=1).values - views.min(dim=1).values).amax(dim=(-2, -1)) < 1e-3
    assert 0.45 < gray.float().mean() < 0.55
    assert len(JITTERS) == 7


@pytest.mark.parametrize("seed", range(4))
def test_autocontrast_equals_pillows_and_keeps_constant_channels(seed: int) -> None:
    draw = np.random.default_rng(seed)
    pixels = draw.integers(draw.integers(0, 90), draw.integers(110, 256), (24, 24, 3), dtype=np.uint8)
    pixels[..., seed % 3] = draw.integers(0, 256)
    constant = np.broadcast_to(draw.integers(0, 256, 3, dtype=np.uint8), (24, 24, 3))
    images = np.stack([pixels, constant, np.full_like(pixels, 255)])
    stretched = autocontrast(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    expected = np.stack([np.asarray(ImageOps.autocontrast(Image.fromarray(image))) for image in images])
    # Pillow truncates to whole levels.
    levels = stretched.mul(255).permute(0, 2, 3, 1).numpy()
    assert np.abs(levels - expected).max() <= 1.001
    assert np.array_equal(levels[1:].round(), expected[1:])


def test_white_images_never_turn_black() -> None:
    crops = torch.full((64, 3, 16, 16), 255, dtype=torch.uint8)
    views = Augmentation()(crops, 0) * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    assert views.amax((-3, -2, -1)).min() > 0.3


def test_crops_follow_torchvisions_defaults() -> None:
    import random

    areas, ratios = [], []
    for seed in range(500):
        top, left, height, width = draw_crop(200, 160, random.Random(seed))
        assert 0 <= top <= 160 - height
        assert 0 <= left <= 200 - width
        areas.append(height * width / 32000)
        ratios.append(width / height)
    assert min(areas) > 0.07
    assert max(areas) > 0.9
    assert 0.74 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.35
    assert draw_crop(1000, 10, random.Random(0)) == (0, 493, 10, 13)


def test_crop_is_uint8_of_the_given_size() -> None:
    image = Image.new("RGBA", (50, 90), (200, 10, 10, 255))
    crop = random_crop(image, 32, 4)
    assert crop.shape == (3, 32, 32)
    assert crop.dtype == torch.uint8
    assert torch.equal(crop, random_crop(image, 32, 4))
    assert Counter(crop[0].flatten().tolist()).keys() <= set(range(201))
