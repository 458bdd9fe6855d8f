"""The augmented view of a reference (METHOD.md, Section 7.2): cropped image by image, the rest in batches."""

import random
from collections.abc import Callable, Sequence
from functools import partial

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv
from torchvision.transforms.v2 import functional as tv2

from mlcl_cli.images.transforms import preprocess_pixels, to_uint8

# Part of the key of banks of views: change it with any change to the views that a seed gives.
RECIPE = "2"
COLOR_PROPERTIES = ("brightness", "contrast", "saturation", "hue")
JITTERS = (  # METHOD.md, Section 7.2, step 4
    *({prop: 0.5} for prop in COLOR_PROPERTIES),
    *(dict.fromkeys(COLOR_PROPERTIES, amount) for amount in (0.1, 0.3, 0.5)),
)


def random_crop(padded: Image.Image, size: int, seed: int) -> Tensor:
    """Crop a random part (8 to 100 % of the area, ratio 3/4 to 4/3), resized to S = `size`: uint8 (3, S, S).

    The draw depends only on `seed`, not on the order in which threads finish.
    """
    box = draw_crop(*padded.size, random.Random(seed))
    return to_uint8(tv.resized_crop(padded, *box, [size, size], InterpolationMode.BILINEAR))


def draw_crop(width: int, height: int, draw: random.Random) -> tuple[int, int, int, int]:
    """Top, left, height and width as torchvision's RandomResizedCrop.get_params draws them, from a given generator."""
    for _ in range(10):
        area = width * height * draw.uniform(0.08, 1.0)
        ratio = (4 / 3) ** draw.uniform(-1, 1)
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return draw.randint(0, height - h), draw.randint(0, width - w), h, w
    # Too narrow for any of the ratios: the center at the nearest ratio, as in torchvision.
    w, h = min(width, round(height * (4 / 3))), min(height, round(width / (3 / 4)))
    return (height - h) // 2, (width - w) // 2, h, w


class Augmentation:
    """Color jitter, symmetry, autocontrast, perspective and grayscale, drawn for each image of a batch."""

    def __init__(self) -> None:
        from kornia import augmentation as k

        self._jitters = [k.ColorJitter(**amounts, p=1.0) for amounts in JITTERS]
        # Steps 7 and 8 of METHOD.md, Section 7.2.
        self._rest = k.AugmentationSequential(k.RandomPerspective(0.5, p=0.5), k.RandomGrayscale(p=0.5))

    @torch.no_grad()
    def __call__(self, crops: Tensor, seed: int) -> Tensor:
        """uint8 crops (B, 3, S, S) to normalized views (B, 3, S, S). Depends only on `crops` and `seed`."""
        with torch.random.fork_rng(devices=[crops.device] if crops.is_cuda else []):
            torch.manual_seed(seed)
            views = crops.float().div_(255)
            views = _apply_choice(views, self._jitters)
            views = _apply_choice(views, SYMMETRIES)
            views = _apply_choice(views, [nn.Identity(), autocontrast])
            return preprocess_pixels(self._rest(views).clamp_(0, 1))


def autocontrast(views: Tensor) -> Tensor:
    """Stretch each channel of views (B, 3, S, S) in [0, 1] to the whole range, like Pillow.

    A channel with a single 8-bit value stays as it is; kornia would turn it black.
    """
    half_level = 0.5 / 255  # the rounding errors of the jitters are far smaller
    flat = views.amax((-2, -1), keepdim=True) - views.amin((-2, -1), keepdim=True) < half_level
    return torch.where(flat, views, tv2.autocontrast(views))


def _apply_choice(views: Tensor, choices: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    """One of `choices` for each image, equally likely."""
    drawn = torch.randint(len(choices), (len(views),))
    result = torch.empty_like(views)
    for number, apply in enumerate(choices):
        rows = (drawn == number).nonzero().flatten().to(views.device)
        if len(rows):
            result[rows] = apply(views[rows])
    return result


def _rotate(views: Tensor, quarters: int, *, flipped: bool) -> Tensor:
    return torch.rot90(views.flip(-1) if flipped else views, quarters, (-2, -1))


# The eight symmetries of the square (METHOD.md, Section 7.2, step 5): four rotations, each with and without a flip.
SYMMETRIES = [partial(_rotate, quarters=n, flipped=flipped) for flipped in (False, True) for n in range(4)]
