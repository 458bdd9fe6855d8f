"""Small copies of images, to embed in a page."""

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mlcl_cli.images.decode import BadImage, open_image, read_files

QUALITY = 74


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A JPEG image and its size in pixels."""

    width: int
    height: int
    jpeg: bytes

    @property
    def uri(self) -> str:
        """The image as a `data:` URI."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode()}"


def thumbnails(
    files: Sequence[tuple[str, Path]], side: int, workers: int, advance: Callable[[int], object] = lambda _: None
) -> Iterator[Thumbnail | None]:
    """A copy of each image whose longer side has at most `side` pixels, None for one that cannot be read."""
    for result in read_files(files, lambda path, _: _thumbnail(open_image(path), side), workers):
        advance(1)
        yield None if isinstance(result, BadImage) else result


def _thumbnail(image: Image.Image, side: int) -> Thumbnail:
    small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small.thumbnail((side, side))
    if small.mode == "RGBA":  # on white, like product photographs
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY, optimize=True)
    return Thumbnail(small.width, small.height, file.getvalue())
