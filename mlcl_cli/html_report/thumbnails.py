"""Small copies of images, to embed in a page."""

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mlcl_cli.images.decode import BadImage, open_image, read_files

MAX_SIDE = 128  # pixels
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
    files: Sequence[tuple[str, Path]], workers: int, advance: Callable[[int], object] = lambda _: None
) -> Iterator[Thumbnail | None]:
    """A small copy of each image, None for one that cannot be read."""
    for result in read_files(files, lambda path, _: _thumbnail(open_image(path)), workers):
        advance(1)
        yield None if isinstance(result, BadImage) else result


def _thumbnail(image: Image.Image) -> Thumbnail:
    small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    if small.mode == "RGBA":  # on white, like product photographs
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY, optimize=True)
    return Thumbnail(small.width, small.height, file.getvalue())
