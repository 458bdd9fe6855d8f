"""Small copies of images."""

import base64
import io
from dataclasses import dataclass

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


def thumbnail(image: Image.Image, side: int) -> Thumbnail:
    """A copy whose longer side has at most `side` pixels, on white where the image is transparent."""
    small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small.thumbnail((side, side))
    if small.mode == "RGBA":  # on white, like product photographs
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY, optimize=True)
    return Thumbnail(small.width, small.height, file.getvalue())
