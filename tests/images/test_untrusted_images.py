"""Images from any source start no other program and take no more memory than the limit."""

from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from mlcl_cli.images.decode import FORMATS, BadImage, open_image, read_files, set_limits
from mlcl_cli.images.image_cache import ImageCache, PaddedImageCache
from mlcl_cli.images.transforms import Transform

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
NARROW = ((1, 100_000), (100_000, 1))


@pytest.fixture(autouse=True)
def _limits() -> None:
    set_limits(64, 60)


def test_postscript_named_png_starts_no_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    ghostscript = folder / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    path = tmp_path / "image.png"
    path.write_bytes(EPS)
    with pytest.raises(OSError, match="not an image in JPEG, PNG"):
        open_image(path)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF"])
def test_formats_are_read_whatever_the_file_name(tmp_path: Path, name: str) -> None:
    if name not in FORMATS:
        pytest.skip("not in this build of Pillow")
    Image.new("RGB", (8, 6), "red").save(tmp_path / "file.jpg", name)
    assert open_image(tmp_path / "file.jpg").size == (8, 6)


@pytest.mark.parametrize("size", NARROW)
@pytest.mark.parametrize("kind", ["targetpad", "squarepad", "clip"])
def test_image_that_padding_makes_too_large_is_bad_with_reason(
    tmp_path: Path, kind: str, size: tuple[int, int]
) -> None:
    path = tmp_path / "line.png"
    Image.new("RGB", size).save(path)
    assert path.stat().st_size < 2000
    transform = Transform(kind, 1.25, 64)  # type: ignore[arg-type]
    images = ImageCache([("line", path)], transform, 1, 0)
    (bad,) = images.find_bad(lambda _: None)
    assert bad.name == "line"
    assert f"too narrow: {size[0]} × {size[1]} pixels would be" in bad.reason
    assert "image.max_megapixels" in bad.reason
    if kind != "clip":
        opener = PaddedImageCache(transform, 0)
        (result,) = read_files([("line", path)], lambda path, _: opener(path).size, 1)
        assert isinstance(result, BadImage)
        assert "too narrow" in result.reason


def test_sizes_up_to_the_limit_are_padded() -> None:
    set_limits(0.01, 60)
    transform = Transform("squarepad", 1.25, 16)
    assert transform.pad(Image.new("RGB", (200, 20))).size == (200, 200)
    with pytest.raises(ValueError, match="too narrow: 202 × 20 pixels would be padded to 202 × 202"):
        transform.pad(Image.new("RGB", (202, 20)))
