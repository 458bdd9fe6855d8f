"""A small picture in the making: smooth outlines, printed cloth, soft shadows."""

import random
from collections.abc import Sequence
from functools import lru_cache

from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float]

SCALE = 3  # drawn three times as large, then reduced: smooth edges
WHITE: Color = (252, 250, 245)
STEP = 24  # pixels between the parts of a printed pattern


class Canvas:
    """An RGB picture, drawn in units: `units` of them are as wide as the picture.

    `draw` chooses the size in pixels among `widths` and `heights`, the color behind everything among `grounds`, and
    how a photographer would vary the view: a little nearer, a little aside.
    """

    def __init__(
        self,
        widths: Sequence[int],
        heights: Sequence[int],
        units: float,
        draw: random.Random,
        grounds: Sequence[Color] = (),
    ) -> None:
        width, height = draw.choice(widths), draw.choice(heights)
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), draw.choice(grounds) if grounds else WHITE)
        self._pencil = ImageDraw.Draw(self.image)
        zoom = draw.uniform(0.93, 1.04)
        self._unit = width * SCALE / units * zoom
        self._left = width * SCALE * ((1 - zoom) / 2 + draw.uniform(-0.03, 0.03))
        self._top = height * SCALE * ((1 - zoom) / 2 + draw.uniform(-0.03, 0.03))
        self.height = height / width * units

    def polygon(self, points: Sequence[Point], fill: Color) -> None:
        """A filled outline."""
        self._pencil.polygon(self._pixels(points), fill=fill)

    def line(self, points: Sequence[Point], fill: Color, width: float) -> None:
        """A line `width` units thick with rounded joints."""
        self._pencil.line(self._pixels(points), fill=fill, width=max(1, round(width * self._unit)), joint="curve")

    def ellipse(self, center: Point, wide: float, high: float, fill: Color) -> None:
        """A filled ellipse with radii `wide` and `high`."""
        x, y = center
        self._pencil.ellipse(self._pixels([(x - wide, y - high), (x + wide, y + high)]), fill=fill)

    def cloth(self, outlines: Sequence[Sequence[Point]], color: Color, pattern: str, ink: Color) -> None:
        """Filled outlines of printed cloth, darker toward the picture's sides as if it were round."""
        mask = Image.new("L", self.image.size)
        pencil = ImageDraw.Draw(mask)
        for outline in outlines:
            pencil.polygon(self._pixels(outline), fill=255)
        cloth = Image.new("RGB", self.image.size, color)
        if pattern != "plain":
            offset = (int(self._left) % STEP - STEP, int(self._top) % STEP - STEP)
            cloth.paste(ink, offset, _print(pattern, self.image.width + 2 * STEP, self.image.height + 2 * STEP))
        cloth.paste(darker(color, 0.62), (0, 0), _shade(*self.image.size))
        self.image.paste(cloth, (0, 0), mask)

    def finished(self) -> Image.Image:
        """The picture in its final size."""
        return self.image.reduce(SCALE)

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        return [(self._left + x * self._unit, self._top + y * self._unit) for x, y in points]


def curve(start: Point, control: Point, end: Point, steps: int = 8) -> list[Point]:
    """Points of a quadratic curve that is drawn toward `control`, both ends included."""

    def blend(s: float, a: float, b: float, c: float) -> float:
        return (1 - s) ** 2 * a + 2 * s * (1 - s) * b + s**2 * c

    shares = [step / steps for step in range(steps + 1)]
    return [(blend(s, start[0], control[0], end[0]), blend(s, start[1], control[1], end[1])) for s in shares]


def star(center: Point, radius: float) -> list[Point]:
    """A five-pointed star."""
    outer = [(0.0, -1.0), (0.951, -0.309), (0.588, 0.809), (-0.588, 0.809), (-0.951, -0.309)]
    inner = [(0.235, -0.324), (0.38, 0.124), (0.0, 0.4), (-0.38, 0.124), (-0.235, -0.324)]
    points = [point for pair in zip(outer, inner, strict=True) for point in pair]
    return [(center[0] + radius * x, center[1] + radius * y) for x, y in points]


def darker(color: Color, light: float) -> Color:
    """The color with a share `light` of its light."""
    red, green, blue = (round(part * light) for part in color)
    return red, green, blue


def varied(color: Color, draw: random.Random, amount: int = 9) -> Color:
    """The color as another camera would see it."""
    red, green, blue = (min(255, max(0, part + draw.randint(-amount, amount))) for part in color)
    return red, green, blue


@lru_cache(maxsize=256)
def _print(pattern: str, width: int, height: int) -> Image.Image:
    mask = Image.new("L", (width, height))
    pencil = ImageDraw.Draw(mask)
    if pattern in ("striped", "checked"):
        for y in range(0, height, STEP):
            pencil.rectangle((0, y, width, y + 8), fill=255)
    if pattern == "checked":
        for x in range(0, width, STEP):
            pencil.rectangle((x, 0, x + 8, height), fill=255)
    if pattern in ("dotted", "starry"):
        for row, y in enumerate(range(0, height, STEP)):
            for x in range(STEP // 2 * (row % 2), width, STEP):
                if pattern == "dotted":
                    pencil.ellipse((x, y, x + 13, y + 13), fill=255)
                else:
                    pencil.polygon(star((x + 9, y + 9), 12), fill=255)
    return mask


@lru_cache(maxsize=64)
def _shade(width: int, height: int) -> Image.Image:
    row = Image.new("L", (width, 1))
    row.putdata([round(150 * abs(2 * x / width - 1) ** 2.5) for x in range(width)])
    return row.resize((width, height))
