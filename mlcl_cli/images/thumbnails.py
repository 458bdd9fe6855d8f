"""Small copies of images."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

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


Color = tuple[int, int, int]  # red, green, blue


def half_blocks(image: Image.Image, width: int, lines: int) -> list[list[tuple[Color, Color]]]:
    """An image in at most `lines` lines of `width` characters: the colors of each one's upper and lower half."""
    small = image.convert("RGB")
    small.thumbnail((width, 2 * lines))
    pixels = np.asarray(small).tolist()
    rows = [[(r, g, b) for r, g, b in row] for row in pixels]
    lower = [*rows[1::2], *([rows[-1]] if len(rows) % 2 else [])]
    return [[*zip(above, below, strict=True)] for above, below in zip(rows[::2], lower, strict=True)]


def thumbnail(image: Image.Image, side: int) -> Thumbnail:
    """A copy whose longer side has at most `side` pixels, on white where the image is transparent."""
    small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small.thumbnail((side, side))
    if small.mode == "RGBA":  # on white, like product photographs
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY, optimize=True)
    return Thumbnail(small.width, small.height, file.getvalue())
