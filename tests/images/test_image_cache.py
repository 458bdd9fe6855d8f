"""Images are decoded once if memory allows, and each read equals a fresh decode."""

from pathlib import Path

import pytest
import torch
from world import picture

from mlcl_cli.images import image_cache as module
from mlcl_cli.images.decode import BadImagesError, open_image
from mlcl_cli.images.image_cache import ImageCache, PaddedImageCache
from mlcl_cli.images.transforms import Transform

TRANSFORM = Transform("targetpad", 1.25, 16)
BYTES = 3 * 16 * 16


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[str, Path]]:
    return [(str(seed), picture(tmp_path / f"{seed}.png", seed)) for seed in range(6)]


@pytest.mark.parametrize("budget", [0, 2 * BYTES, 100 * BYTES])
def test_reads_equal_a_fresh_decode(files: list[tuple[str, Path]], budget: int) -> None:
    cache = ImageCache(files, TRANSFORM, 2, budget)
    names = ["4", "0", "0", "5"]
    expected = torch.stack([TRANSFORM(open_image(files[int(name)][1])) for name in names])
    for _ in range(2):
        assert torch.equal(cache.read(names), expected)


def test_images_that_fit_are_decoded_once(files: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ImageCache(files, TRANSFORM, 2, 3 * BYTES)
    assert cache.find_bad(lambda _: None) == []
    decoded: list[str] = []
    real = module.read_files
    monkeypatch.setattr(
        module, "read_files", lambda batch, *rest: (decoded.extend(name for name, _ in batch), real(batch, *rest))[1]
    )
    cache.read(["0", "1", "2"])
    assert decoded == []
    cache.read(["2", "3"])
    assert decoded == ["3"]


def test_bad_images_are_found_and_never_read(files: list[tuple[str, Path]]) -> None:
    files[1][1].write_text("no image")
    cache = ImageCache(files, TRANSFORM, 2)
    assert [bad.name for bad in cache.find_bad(lambda _: None)] == ["1"]
    with pytest.raises(BadImagesError, match="not an image"):
        cache.read(["0", "1"])


@pytest.mark.parametrize("kept", [0, 2, 6])
def test_padded_images_equal_fresh_ones_and_those_that_fit_are_decoded_once(
    files: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    side = 32  # 40 by 30 pixels, padded to 1.25 times the shorter side
    opener = PaddedImageCache(TRANSFORM, kept * 40 * side * 4)
    expected = [TRANSFORM.pad(open_image(path)) for _, path in files]
    assert expected[0].size == (40, side)
    opened: list[Path] = []
    monkeypatch.setattr(module, "open_image", lambda path: (opened.append(path), open_image(path))[1])
    for _ in range(2):
        assert [opener(path).tobytes() for _, path in files] == [image.tobytes() for image in expected]
    assert len(opened) == 6 + (6 - kept)


@pytest.mark.parametrize("transform", [Transform("clip", 1.25, 16), Transform("squarepad", 1.25, 16)])
def test_views_are_padded_with_targetpad_whatever_the_transform(
    files: list[tuple[str, Path]], transform: Transform
) -> None:
    wide = picture(files[0][1], 0, (80, 20))
    assert PaddedImageCache(transform)(wide).size == TRANSFORM.pad(open_image(wide)).size == (80, 64)
    assert PaddedImageCache(Transform("targetpad", 2.0, 16))(wide).size == (80, 64)
