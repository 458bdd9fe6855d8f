"""From a picture to the square that an encoder sees (METHOD.md, Section 7.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

# CLIP's statistics: METHOD.md, Section 7.1.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
PADDING_ROOM = 4  # how many times as large as the largest picture padding may make one: a panorama of 4:1


@dataclass(frozen=True, slots=True)
class Transform:
    """Padding `kind`, `ratio` (ρ, of targetpad only) and side `size` (S) of the square, in pixels."""

    kind: Literal["targetpad", "squarepad", "clip"]
    ratio: float
    size: int

    def require_size(self, size: tuple[int, int]) -> None:
        """Raises ValueError where a picture of `size` (width, height) would be padded or resized beyond the limit.

        The limit is PADDING_ROOM times `set_limits`' megapixels; nothing is allocated.
        """
        beside, above = self._margins(*size)
        width, height = size[0] + 2 * beside, size[1] + 2 * above
        _require_room(size, width, height, "padded")
        short = min(width, height)
        _require_room(size, self.size * width // short, self.size * height // short, "resized")

    def pad(self, image: Image.Image) -> Image.Image:
        """Pads in the file's own mode with zeros; `clip` pads nothing. Raises ValueError as `require_size` does."""
        self.require_size(image.size)
        beside, above = self._margins(*image.size)
        if not beside and not above:
            return image
        padded: Image.Image = tv.pad(image, [beside, above, beside, above], 0, "constant")
        return padded

    def _margins(self, width: int, height: int) -> tuple[int, int]:
        """Pixels to add at the left and right, and at the top and bottom: METHOD.md, Equation 19."""
        side = float(max(width, height))
        if self.kind == "clip":
            return 0, 0
        if self.kind == "targetpad":
            if side / min(width, height) < self.ratio:
                return 0, 0
            side /= self.ratio
        return max(int((side - width) / 2), 0), max(int((side - height) / 2), 0)

    def __call__(self, image: Image.Image) -> Tensor:
        """The padded, bicubically resized, centrally cropped picture: uint8 RGB, (3, S, S).

        Raises ValueError as `require_size` does.
        """
        padded = self.pad(image)
        resized = tv.resize(padded, [self.size], InterpolationMode.BICUBIC)
        return to_uint8(tv.center_crop(resized, [self.size]))


def _require_room(size: tuple[int, int], width: int, height: int, how: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > PADDING_ROOM * limit:
        bound = f"{PADDING_ROOM * limit / 1e6:g} megapixels ({PADDING_ROOM} × image.max_megapixels)"
        what = f"{size[0]} × {size[1]} pixels would be {how} to {width} × {height}"
        raise ValueError(f"too narrow: {what}, over {bound}")


def to_uint8(image: Image.Image) -> Tensor:
    """RGB bytes of a picture, (3, H, W)."""
    pixels: Tensor = tv.pil_to_tensor(image.convert("RGB"))
    return pixels


def preprocess_pixels(pixels: Tensor) -> Tensor:
    """uint8 (B, 3, H, W), or floats in [0, 1], to what CLIP expects: fp32, CLIP's mean and deviation removed."""
    scaled = pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels
    return scaled.sub(_column(MEAN, scaled)).div_(_column(STD, scaled))


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None, None]
