"""How an item of the catalog is drawn: the shapes of drawings.yaml, chosen by its attributes."""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated

import yaml
from PIL import Image
from pydantic import BeforeValidator

from mlcl_cli.demo.canvas import WHITE, Canvas, Color, Point, curve, darker, star, varied
from mlcl_cli.demo.vocabulary import DataFile, Item, read_text

Place = Callable[[Point], Point]
SOLE = 5.0


def _with_curves(rows: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    outline: list[Sequence[float]] = []
    for row in rows:
        outline += curve((row[0], row[1]), (row[2], row[3]), (row[4], row[5])) if len(row) == 6 else [row]
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


def _moved(left: float, top: float, scale: float = 1.0) -> Place:
    return lambda point: (left + point[0] * scale, top + point[1] * scale)


ON_CANVAS = _moved(0, 0)
DRAWINGS = Drawings.model_validate(yaml.safe_load(read_text("drawings.yaml")))


def draw_garment(category: str, item: Item, draw: random.Random) -> Image.Image:
    """A product picture of a dress, shirt or toptee on pale paper."""
    canvas = Canvas((72, 76, 80), (90, 96, 100), 100, draw, DRAWINGS.papers)
    colors = {"color": varied(DRAWINGS.garment_colors[item["hue"]][item["shade"]], draw)}
    color, parts = colors["color"], DRAWINGS.garments[category]
    half = [point for name in parts.outline for point in DRAWINGS.outlines[name.format(**item)]]
    sleeve = DRAWINGS.outlines.get(f"{item['sleeves']} sleeve", ())
    outlines = [outline for outline in ([*half, *_mirrored(half)[::-1]], sleeve, _mirrored(sleeve)) if outline]
    _paint(canvas, ["hanger"], colors)
    canvas.cloth(outlines, color, item["pattern"], WHITE if sum(color) < 560 else darker(color, 0.6))
    _paint(canvas, [name.format(**item) for name in parts.details], colors)
    return canvas.finished()


def draw_shoe(item: Item, draw: random.Random) -> Image.Image:
    """A product picture of a shoe, seen from the side, on pale paper."""
    canvas = Canvas((88, 92, 96), (72, 76), 114, draw, DRAWINGS.papers)
    colors = {part: varied(DRAWINGS.shoe_colors[item[part]], draw) for part in ("color", "sole")}
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
    return canvas.finished()


def draw_scene(item: Item, draw: random.Random) -> Image.Image:
    """Toy animals and a thing beside them, in a place by day or night."""
    canvas = Canvas((88, 92, 96), (72, 76, 80), 100, draw)
    colors = {part: varied(DRAWINGS.scene_colors[item[part]], draw) for part in ("color", "thing_color")}
    background = "{place} {time}".format(**item)
    _paint(canvas, [background, f"sky over {background}", item["thing"]], colors)
    for x, y, size in DRAWINGS.spots[item["count"]]:
        scale = size * draw.uniform(0.94, 1.06)
        place = _moved(x + draw.uniform(-2, 2), y + draw.uniform(-1.5, 1.5), scale)
        _paint(canvas, [item["animal"]], colors, place, scale)
    return canvas.finished()


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
        fill = darker(colors[shape.fill] if isinstance(shape.fill, str) else shape.fill, shape.light)
        if shape.ellipse:
            x, y, wide, high = shape.ellipse
            canvas.ellipse(place((x, y)), wide * scale, high * scale, fill)
        elif shape.line:
            canvas.line([place(point) for point in shape.line], fill, shape.width * scale)
        elif shape.star:
            canvas.polygon(star(place((0, 0)), shape.star), fill)
        else:
            canvas.polygon([place(point) for point in shape.polygon], fill)


def _mirrored(outline: Sequence[Point]) -> list[Point]:
    """The outline on the other side of a garment's middle."""
    return [(100 - x, y) for x, y in outline]
