"""How an item of the catalog is drawn: the shapes of drawings.yaml, chosen by its attributes."""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Annotated

import yaml
from PIL import Image, ImageDraw
from pydantic import BeforeValidator

from mlcl_cli.demo.vocabulary import DataFile, Item, read_text

Color = tuple[int, int, int]
Point = tuple[float, float]
Place = Callable[[Point], Point]

SCALE = 3  # drawn three times as large, then reduced: smooth edges
WHITE: Color = (252, 250, 245)
STEP = 24  # pixels between the parts of a printed pattern
SOLE = 5.0


def _with_curves(rows: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    def blend(share: float, start: float, control: float, end: float) -> float:
        return (1 - share) ** 2 * start + 2 * share * (1 - share) * control + share**2 * end

    outline: list[Sequence[float]] = []
    for row in rows:
        curve = [(blend(step / 8, *row[::2]), blend(step / 8, *row[1::2])) for step in range(9 if len(row) == 6 else 0)]
        outline += curve or [row]
    return outline


Outline = Annotated[tuple[Point, ...], BeforeValidator(_with_curves)]


class Shape(DataFile):
    """An ellipse (x, y and two radii), a line, a star's radius around the origin, or a polygon."""

    fill: str | Color
    light: float = 1.0
    ellipse: tuple[float, float, float, float] | None = None
    line: Outline = ()
    width: float = 1.0
    star: float | None = None
    polygon: Outline = ()


class Garment(DataFile):
    """Templates for the names of the outlines that its right half consists of, and of the shapes on it."""

    outline: tuple[str, ...]
    details: tuple[str, ...]


class Drawings(DataFile):
    """All of drawings.yaml."""

    palette: dict[str, Color]
    papers: tuple[Color, ...]
    garment_colors: dict[str, dict[str, Color]]
    shoe_colors: dict[str, Color]
    scene_colors: dict[str, Color]
    garments: dict[str, Garment]
    heel_heights: dict[str, float]
    spots: dict[str, tuple[tuple[float, float, float], ...]]
    outlines: dict[str, Outline]
    shapes: dict[str, tuple[Shape, ...]]


class Canvas:
    """An RGB picture, drawn in units: `units` of them are as wide as the picture.

    `draw` chooses the size in pixels, the background among `grounds`, and how a photographer would vary the view.
    """

    def __init__(
        self,
        size: tuple[Sequence[int], Sequence[int]],
        units: float,
        draw: random.Random,
        grounds: Sequence[Color] = (),
    ) -> None:
        width, height = map(draw.choice, size)
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
        cloth.paste(_darker(color, 0.62), (0, 0), _shade(*self.image.size))
        self.image.paste(cloth, (0, 0), mask)

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        return [(self._left + x * self._unit, self._top + y * self._unit) for x, y in points]


def _moved(left: float, top: float, scale: float = 1.0) -> Place:
    return lambda point: (left + point[0] * scale, top + point[1] * scale)


ON_CANVAS = _moved(0, 0)
DRAWINGS = Drawings.model_validate(yaml.safe_load(read_text("drawings.yaml")))


def draw_garment(category: str, item: Item, draw: random.Random) -> Image.Image:
    """A product picture of a dress, shirt or toptee on pale paper."""
    canvas = Canvas(((72, 76, 80), (90, 96, 100)), 100, draw, DRAWINGS.papers)
    colors = {"color": _varied(DRAWINGS.garment_colors[item["hue"]][item["shade"]], draw)}
    color, parts = colors["color"], DRAWINGS.garments[category]
    half = [point for name in parts.outline for point in DRAWINGS.outlines[name.format(**item)]]
    sleeve = DRAWINGS.outlines.get(f"{item['sleeves']} sleeve", ())
    outlines = [outline for outline in ([*half, *_mirrored(half)[::-1]], sleeve, _mirrored(sleeve)) if outline]
    _paint(canvas, ["hanger"], colors)
    canvas.cloth(outlines, color, item["pattern"], WHITE if sum(color) < 560 else _darker(color, 0.6))
    _paint(canvas, [name.format(**item) for name in parts.details], colors)
    return canvas.image.reduce(SCALE)


def draw_shoe(item: Item, draw: random.Random) -> Image.Image:
    """A product picture of a shoe, seen from the side, on pale paper."""
    canvas = Canvas(((88, 92, 96), (72, 76)), 114, draw, DRAWINGS.papers)
    colors = {part: _varied(DRAWINGS.shoe_colors[item[part]], draw) for part in ("color", "sole")}
    heel, ground = DRAWINGS.heel_heights[item["heel"]], canvas.height - 8

    def foot(point: Point) -> Point:
        """From distance and height above the sole; all of the heel's height at the back, none from the ball on."""
        x, height = point
        share = min(1.0, max(0.0, (66 - x) / 52))
        return x + 6, ground - SOLE - heel * share * share * (3 - 2 * share) - height

    style = item["style"]
    _paint(canvas, ["shoe shadow"], colors, _moved(0, ground))
    for name in (style, f"{style} strap 1", f"{style} strap 2"):
        if outline := DRAWINGS.outlines.get(name):
            canvas.cloth([[foot(point) for point in outline]], colors["color"], "plain", WHITE)
    _paint(canvas, [style], colors, foot)
    tread = [(float(x), 0.0) for x in range(6, 99, 4)]
    canvas.polygon([foot(point) for point in (*tread, *((x, -SOLE) for x, _ in reversed(tread)))], colors["sole"])
    _paint(canvas, [f"{item['heel']} heel"], colors, _moved(0, ground))
    _paint(canvas, [item["trim"]], colors, _moved(*foot((72, {"sandal": 16, "pump": 10}.get(style, 14)))))
    return canvas.image.reduce(SCALE)


def draw_scene(item: Item, draw: random.Random) -> Image.Image:
    """Toy animals and a thing beside them, in a place by day or night."""
    canvas = Canvas(((88, 92, 96), (72, 76, 80)), 100, draw)
    colors = {part: _varied(DRAWINGS.scene_colors[item[part]], draw) for part in ("color", "thing_color")}
    background = "{place} {time}".format(**item)
    _paint(canvas, [background, f"sky over {background}", item["thing"]], colors)
    for x, y, size in DRAWINGS.spots[item["count"]]:
        scale = size * draw.uniform(0.94, 1.06)
        place = _moved(x + draw.uniform(-2, 2), y + draw.uniform(-1.5, 1.5), scale)
        _paint(canvas, [item["animal"]], colors, place, scale)
    return canvas.image.reduce(SCALE)


PAINTERS: Mapping[str, Callable[[Item, random.Random], Image.Image]] = {
    **{category: partial(draw_garment, category) for category in DRAWINGS.garments},
    "shoe": draw_shoe,
    "scene": draw_scene,
}


def _paint(
    canvas: Canvas, names: Sequence[str], colors: Mapping[str, Color], place: Place = ON_CANVAS, scale: float = 1.0
) -> None:
    """Draw the shapes of `names`, some of which may have none. `place` maps their points to the canvas."""
    colors = {**DRAWINGS.palette, **colors}
    for shape in (shape for name in names for shape in DRAWINGS.shapes.get(name, ())):
        fill = _darker(colors[shape.fill] if isinstance(shape.fill, str) else shape.fill, shape.light)
        if shape.ellipse:
            x, y, wide, high = shape.ellipse
            canvas.ellipse(place((x, y)), wide * scale, high * scale, fill)
        elif shape.line:
            canvas.line([place(point) for point in shape.line], fill, shape.width * scale)
        elif shape.star:
            canvas.polygon(_star(place((0, 0)), shape.star), fill)
        else:
            canvas.polygon([place(point) for point in shape.polygon], fill)


def _mirrored(outline: Sequence[Point]) -> list[Point]:
    """The outline on the other side of a garment's middle."""
    return [(100 - x, y) for x, y in outline]


def _star(center: Point, radius: float) -> list[Point]:
    outer = [(0.0, -1.0), (0.951, -0.309), (0.588, 0.809), (-0.588, 0.809), (-0.951, -0.309)]
    inner = [(0.235, -0.324), (0.38, 0.124), (0.0, 0.4), (-0.38, 0.124), (-0.235, -0.324)]
    points = [point for pair in zip(outer, inner, strict=True) for point in pair]
    return [(center[0] + radius * x, center[1] + radius * y) for x, y in points]


def _darker(color: Color, light: float) -> Color:
    red, green, blue = (round(part * light) for part in color)
    return red, green, blue


def _varied(color: Color, draw: random.Random) -> Color:
    """The color as another camera would see it."""
    red, green, blue = (min(255, max(0, part + draw.randint(-9, 9))) for part in color)
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
                    pencil.polygon(_star((x + 9, y + 9), 12), fill=255)
    return mask


@lru_cache(maxsize=64)
def _shade(width: int, height: int) -> Image.Image:
    row = Image.new("L", (width, 1))
    row.putdata([round(150 * abs(2 * x / width - 1) ** 2.5) for x in range(width)])
    return row.resize((width, height))
