"""A small picture in the making: smooth outlines, printed cloth, soft shadows."""

import random
from collections.abc import Sequence
from functools import lru_cache

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

SCALE = 3  # drawn three times as large, then reduced: smooth edges
WHITE: Colour = (252, 250, 245)


class Canvas:
    """An RGB picture of `width` × `height` pixels, drawn in units: `units` of them are as wide as the picture.

    `draw` decides how a photographer would have varied it: a little nearer, a little aside.
    """

    def __init__(self, width: int, height: int, units: float, ground: Colour, draw: random.Random) -> None:
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), ground)
        self._pencil = ImageDraw.Draw(self.image)
        zoom = draw.uniform(0.93, 1.04)
        self.unit = width * SCALE / units * zoom
        self._left = width * SCALE * ((1 - zoom) / 2 + draw.uniform(-0.03, 0.03))
        self._top = height * SCALE * ((1 - zoom) / 2 + draw.uniform(-0.03, 0.03))
        self.tall = height / width * units

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """A filled outline."""
        self._pencil.polygon(self._pixels(points), fill=fill)

    def line(self, points: Sequence[Point], fill: Colour, width: float = 1.0) -> None:
        """A line `width` units thick with rounded joints."""
        self._pencil.line(self._pixels(points), fill=fill, width=max(1, round(width * self.unit)), joint="curve")

    def ellipse(self, x: float, y: float, wide: float, high: float, fill: Colour) -> None:
        """A filled ellipse around (x, y) with radii `wide` and `high`."""
        self._pencil.ellipse(self._pixels([(x - wide, y - high), (x + wide, y + high)]), fill=fill)

    def cloth(self, outlines: Sequence[Sequence[Point]], colour: Colour, pattern: str, ink: Colour) -> None:
        """Filled outlines of printed cloth, darker towards the picture's sides as if it were round."""
        mask = Image.new("L", self.image.size)
        pencil = ImageDraw.Draw(mask)
        for outline in outlines:
            pencil.polygon(self._pixels(outline), fill=255)
        cloth = Image.new("RGB", self.image.size, colour)
        if pattern != "plain":
            offset = (int(self._left) % 24 - 24, int(self._top) % 24 - 24)
            cloth.paste(ink, offset, _print(pattern, self.image.width + 48, self.image.height + 48))
        cloth.paste(darker(colour, 0.62), (0, 0), _shade(*self.image.size))
        self.image.paste(cloth, (0, 0), mask)

    def finished(self) -> Image.Image:
        """The picture in its final size."""
        return self.image.reduce(SCALE)

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        return [(self._left + x * self.unit, self._top + y * self.unit) for x, y in points]


def curve(start: Point, control: Point, end: Point, steps: int = 8) -> list[Point]:
    """Points of a quadratic curve that is drawn towards `control`, both ends included."""
    shares = [step / steps for step in range(steps + 1)]
    return [
        (
            (1 - s) ** 2 * start[0] + 2 * s * (1 - s) * control[0] + s**2 * end[0],
            (1 - s) ** 2 * start[1] + 2 * s * (1 - s) * control[1] + s**2 * end[1],
        )
        for s in shares
    ]


def mirrored(half: Sequence[Point], axis: float = 50.0) -> list[Point]:
    """A closed outline from its right half, listed from top to bottom."""
    return [*half, *((2 * axis - x, y) for x, y in reversed(half))]


def darker(colour: Colour, share: float = 0.75) -> Colour:
    """The colour with `share` of its light."""
    red, green, blue = (round(part * share) for part in colour)
    return red, green, blue


def varied(colour: Colour, draw: random.Random, amount: int = 9) -> Colour:
    """The colour as another camera would see it."""
    red, green, blue = (min(255, max(0, part + draw.randint(-amount, amount))) for part in colour)
    return red, green, blue


@lru_cache(maxsize=256)
def _print(pattern: str, width: int, height: int) -> Image.Image:
    mask = Image.new("L", (width, height))
    pencil = ImageDraw.Draw(mask)
    step = 24
    if pattern in ("striped", "checked"):
        for y in range(0, height, step):
            pencil.rectangle((0, y, width, y + 8), fill=255)
    if pattern == "checked":
        for x in range(0, width, step):
            pencil.rectangle((x, 0, x + 8, height), fill=255)
    if pattern in ("dotted", "starry"):
        for row, y in enumerate(range(0, height, step)):
            for x in range(step // 2 * (row % 2), width, step):
                if pattern == "dotted":
                    pencil.ellipse((x, y, x + 13, y + 13), fill=255)
                else:
                    pencil.polygon(star(x + 9, y + 9, 12), fill=255)
    return mask


def star(x: float, y: float, radius: float) -> list[Point]:
    """A five-pointed star around (x, y)."""
    outer = [(0.0, -1.0), (0.951, -0.309), (0.588, 0.809), (-0.588, 0.809), (-0.951, -0.309)]
    inner = [(0.235, -0.324), (0.38, 0.124), (0.0, 0.4), (-0.38, 0.124), (-0.235, -0.324)]
    return [(x + radius * px, y + radius * py) for pair in zip(outer, inner, strict=True) for px, py in pair]


@lru_cache(maxsize=64)
def _shade(width: int, height: int) -> Image.Image:
    row = Image.new("L", (width, 1))
    row.putdata([round(150 * abs(2 * x / width - 1) ** 2.5) for x in range(width)])
    return row.resize((width, height))
