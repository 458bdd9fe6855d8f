"""From an image to the encoder's square input (METHOD.md, Section 7.1)."""

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
# Padding may exceed the size limit of images this many times: a panorama of 4:1 may have any size within the limit.
PADDING_FACTOR = 4


@dataclass(frozen=True, slots=True)
class Transform:
    """Padding `kind`, target `ratio` (ρ, for targetpad only), and `size` (S) of the square, in pixels."""

    kind: Literal["targetpad", "squarepad", "clip"]
    ratio: float
    size: int

    def require_size(self, size: tuple[int, int]) -> None:
        """Raise ValueError if an image of `size` (width, height) would be padded or resized beyond the limit.

        The limit is PADDING_FACTOR times the megapixels of `set_limits`.
        """
        horizontal, vertical = self._margins(*size)
        width, height = size[0] + 2 * horizontal, size[1] + 2 * vertical
        short, limit = min(width, height), Image.MAX_IMAGE_PIXELS
        resized = self.size * width // short, self.size * height // short
        for action, (w, h) in (("padded", (width, height)), ("resized", resized)):
            if limit is not None and w * h > PADDING_FACTOR * limit:
                bound = f"{PADDING_FACTOR * limit / 1e6:g} megapixels ({PADDING_FACTOR} × image.max_megapixels)"
                what = f"{size[0]} × {size[1]} pixels would be {action} to {w} × {h}"
                raise ValueError(f"too narrow: {what}, over {bound}")

    def pad(self, image: Image.Image) -> Image.Image:
        """Pad with zeros in the image's own mode. Raises ValueError as `require_size` does."""
        self.require_size(image.size)
        margins = self._margins(*image.size)
        padded: Image.Image = tv.pad(image, [*margins], 0, "constant") if any(margins) else image
        return padded

    def _margins(self, width: int, height: int) -> tuple[int, int]:
        """Horizontal and vertical padding on each side, in pixels: METHOD.md, Equation 19."""
        side = float(max(width, height))
        if self.kind == "clip":
            return 0, 0
        if self.kind == "targetpad":
            if side / min(width, height) < self.ratio:
                return 0, 0
            side /= self.ratio
        return max(int((side - width) / 2), 0), max(int((side - height) / 2), 0)

    def __call__(self, image: Image.Image) -> Tensor:
        """The padded, bicubically resized, center-cropped image: uint8 RGB (3, S, S). Raises as `require_size` does."""
        resized = tv.resize(self.pad(image), [self.size], InterpolationMode.BICUBIC)
        return to_uint8(tv.center_crop(resized, [self.size]))


def to_uint8(image: Image.Image) -> Tensor:
    """RGB bytes of an image, (3, H, W)."""
    pixels: Tensor = tv.pil_to_tensor(image.convert("RGB"))
    return pixels


def preprocess_pixels(pixels: Tensor) -> Tensor:
    """uint8 (B, 3, H, W), or floats in [0, 1], normalized with CLIP's mean and standard deviation, fp32."""
    scaled = pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels
    mean, std = (torch.tensor(values, device=scaled.device)[:, None, None] for values in (MEAN, STD))
    return scaled.sub(mean).div_(std)
