"""Dresses, shirts and tops: what they differ in, and how they are drawn."""

import random
from collections.abc import Mapping

from PIL import Image

from mlcl_cli.demo.canvas import WHITE, Canvas, Colour, Point, curve, darker, mirrored, varied

SHADES: Mapping[str, Mapping[str, Colour]] = {
    "red": {"light": (240, 130, 118), "bright": (214, 50, 48), "dark": (122, 22, 34)},
    "yellow": {"light": (250, 232, 150), "bright": (242, 196, 40), "dark": (176, 128, 16)},
    "green": {"light": (160, 212, 140), "bright": (60, 158, 76), "dark": (22, 84, 50)},
    "blue": {"light": (146, 194, 238), "bright": (46, 108, 206), "dark": (22, 44, 110)},
    "purple": {"light": (204, 168, 226), "bright": (136, 70, 180), "dark": (76, 26, 106)},
    "grey": {"light": (206, 206, 208), "bright": (136, 138, 144), "dark": (62, 64, 70)},
}
PAPERS: tuple[Colour, ...] = ((247, 244, 238), (240, 243, 246), (246, 240, 240), (243, 245, 238))
SLEEVES: Mapping[str, tuple[Point, ...]] = {
    "short": ((80, 27), (71, 35)),
    "long": ((86, 61), (76, 64)),
}


def draw_garment(item: Mapping[str, str], draw: random.Random) -> Image.Image:
    """A product picture of a dress, shirt or toptee on pale paper."""
    canvas = Canvas(draw.choice((72, 76, 80)), draw.choice((90, 96, 100)), 100, draw.choice(PAPERS), draw)
    colour = varied(SHADES[item["hue"]][item["shade"]], draw)
    _hanger(canvas)
    {"dress": _dress, "shirt": _shirt, "toptee": _toptee}[item["category"]](canvas, item, colour)
    return canvas.finished()


def _hanger(canvas: Canvas) -> None:
    wood = (186, 150, 110)
    canvas.line([*curve((50, 9), (56, 4), (50, 2)), *curve((50, 2), (45, 2), (46, 5))], wood, 1.2)
    canvas.line([(34, 17), (50, 9), (66, 17)], wood, 2)


def _dress(canvas: Canvas, item: Mapping[str, str], colour: Colour) -> None:
    hem, flare = {"mini": (70, 70), "knee-length": (90, 76), "floor-length": (114, 80)}[item["hem"]]
    side = [*curve((63, 31), (63, 40), (60, 47)), *curve((60, 47), (64, 60), (flare, hem))]
    body = mirrored([*_neckline(item["neckline"]), (66, 14), *side, (50, hem + 2)])
    _sew(canvas, item, colour, body)
    canvas.line([(40, 47), (60, 47)], darker(colour), 2)


def _shirt(canvas: Canvas, item: Mapping[str, str], colour: Colour) -> None:
    body = mirrored([(54, 11), (66, 14), (67, 31), (66, 86), (50, 88)])
    _sew(canvas, item, colour, body)
    seam = darker(colour, 0.7)
    canvas.line([(50, 14), (50, 88)], seam, 1)
    for y in range(24, 86, 11):
        canvas.ellipse(52.5, y, 1.5, 1.5, WHITE)
    if item["collar"] == "white":
        canvas.polygon(mirrored([(53, 9), (58, 12), (56, 23), (50, 15)]), WHITE)
        canvas.line([(50, 15), (56, 23), (58, 12)], seam, 0.8)
        canvas.line([(50, 15), (44, 23), (42, 12)], seam, 0.8)
    elif item["collar"] == "pointed":
        canvas.polygon(mirrored([(53, 9), (58, 12), (56, 23), (50, 15)]), seam)
    else:
        canvas.ellipse(50, 11, 6, 3, seam)
    pockets = {"no pocket": (), "one pocket": (59,), "two pockets": (41, 59)}[item["pockets"]]
    for x in pockets:
        canvas.polygon([(x - 6, 38), (x + 6, 38), (x + 6, 49), (x, 53), (x - 6, 49)], seam)
        canvas.line([(x - 6, 41), (x + 6, 41)], WHITE, 1)


def _toptee(canvas: Canvas, item: Mapping[str, str], colour: Colour) -> None:
    hem = {"cropped": 58, "long": 84}[item["length"]]
    side = [*curve((65, 31), (63, 42), (66, hem))]
    body = mirrored([*_neckline(item["neckline"]), (66, 14), *side, (50, hem + 1)])
    _sew(canvas, item, colour, body)
    canvas.line([(34, hem - 2), (66, hem - 2)], darker(colour), 1)


def _sew(canvas: Canvas, item: Mapping[str, str], colour: Colour, body: list[Point]) -> None:
    outlines = [body]
    if item["sleeves"] in SLEEVES:
        outer, inner = SLEEVES[item["sleeves"]]
        right = [(62, 12), *curve((66, 14), (75, 16), outer), inner, (63, 33)]
        outlines += [right, [(100 - x, y) for x, y in right]]
    ink = WHITE if sum(colour) < 560 else darker(colour, 0.6)
    canvas.cloth(outlines, colour, item["pattern"], ink)
    if item["sleeves"] in SLEEVES:
        for outline in outlines[1:]:
            canvas.line([outline[-2], outline[-3]], darker(colour), 1.5)
            canvas.line([outline[-1], (outline[-1][0], 22)], darker(colour), 1)


def _neckline(kind: str) -> list[Point]:
    """The right half of the neck's edge, from its lowest point to the shoulder."""
    if kind == "V":
        return [(50, 30), (57, 12)]
    if kind == "square":
        return [(50, 23), (60, 23), (60, 12)]
    return curve((50, 17), (56, 17), (56, 11))
