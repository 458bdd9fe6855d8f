"""Shoes: what they differ in, and how they are drawn, seen from the side."""

import random
from collections.abc import Callable, Mapping

from PIL import Image

from mlcl_cli.demo.canvas import WHITE, Canvas, Colour, Point, curve, darker, star, varied
from mlcl_cli.demo.garments import PAPERS

COLOURS: Mapping[str, Colour] = {
    "red": (206, 44, 46),
    "yellow": (244, 200, 52),
    "green": (58, 146, 80),
    "blue": (48, 100, 198),
    "pink": (242, 150, 184),
    "black": (42, 42, 48),
    "brown": (140, 90, 54),
}
Place = Callable[[list[Point]], list[Point]]
HEELS = {"flat": 0.0, "medium": 9.0, "high": 20.0}
SOLE = 5.0
GOLD: Colour = (226, 184, 78)
# Outlines in (distance from the back, height above the sole), from the heel over the top to the toe.
UPPERS: Mapping[str, list[Point]] = {
    "sneaker": [
        (8, 0), (7, 20), (10, 26), *curve((12, 27), (22, 18), (34, 27)), (40, 27),
        *curve((40, 27), (58, 14), (78, 13)), *curve((78, 13), (96, 11), (96, 0)),
    ],
    "boot": [
        (8, 0), (9, 20), (6, 54), (40, 54), *curve((38, 40), (38, 24), (60, 18)), *curve((60, 18), (96, 16), (97, 0)),
    ],
    "bootie": [
        (8, 0), (8, 36), (38, 36), *curve((38, 36), (38, 22), (60, 17)), *curve((60, 17), (96, 15), (97, 0)),
    ],
    "pump": [
        (8, 0), (6, 22), (10, 23), *curve((10, 23), (20, 2), (56, 6)), *curve((56, 6), (66, 16), (80, 11)),
        *curve((80, 11), (92, 8), (100, 0)),
    ],
    "clog": [
        (34, 0), (30, 8), *curve((30, 8), (34, 26), (52, 27)), *curve((52, 27), (92, 26), (96, 0)),
    ],
    "sandal": [(8, 0), (8, 3), (96, 3), (96, 0)],
}  # fmt: skip


def draw_shoe(item: Mapping[str, str], draw: random.Random) -> Image.Image:
    """A product picture of a shoe on pale paper."""
    canvas = Canvas(draw.choice((88, 92, 96)), draw.choice((72, 76)), 114, draw.choice(PAPERS), draw)
    colour, sole = (varied(COLOURS[item[part]], draw) for part in ("colour", "sole"))
    heel, base = HEELS[item["heel"]], canvas.tall - 8

    def foot(points: list[Point]) -> list[Point]:
        return [(x + 6, base - SOLE - _lift(x, heel) - height) for x, height in points]

    canvas.ellipse(58, base + 1, 50, 3, (226, 224, 220))
    canvas.cloth([foot(UPPERS[item["kind"]])], colour, "plain", WHITE)
    if item["kind"] == "sandal":
        for back, front, height in ((8, 20, 34), (58, 78, 16)):
            strap: list[Point] = [(back, 0), (back + 1, height), (front + 2, height - 2), (front + 8, 0)]
            canvas.cloth([foot(strap)], colour, "plain", WHITE)
        canvas.line(foot([(9, 32), (36, 30), (40, 0)]), colour, 4)
    tread: list[Point] = [(float(x), 0.0) for x in range(6, 99, 4)]
    canvas.polygon([*foot(tread), *foot([(x, -SOLE) for x, _ in reversed(tread)])], sole)
    _heel(canvas, heel, base, sole)
    _details(canvas, item, foot, darker(colour, 0.6))
    return canvas.finished()


def _lift(x: float, heel: float) -> float:
    """How far the foot is above the ground at `x`: all of the heel at the back, nothing from the ball on."""
    share = min(1.0, max(0.0, (66 - x) / 52))
    return heel * share * share * (3 - 2 * share)


def _heel(canvas: Canvas, heel: float, base: float, sole: Colour) -> None:
    if heel:
        top, foot = (26.0, 22.0) if heel < 12 else (22.0, 17.0)
        canvas.polygon([(12, base - heel - 2), (top + 6, base - heel - 1), (foot, base), (13, base)], sole)


def _details(canvas: Canvas, item: Mapping[str, str], foot: Place, seam: Colour) -> None:
    if item["kind"] == "sneaker":
        for lace in (44, 51, 58):
            canvas.line(foot([(lace - 4, 17 - (lace - 44) / 4), (lace + 2, 25 - (lace - 44) / 2)]), WHITE, 2)
    height = {"sandal": 16, "pump": 10}.get(item["kind"], 14)
    ((x, y),) = foot([(72, height)])
    if item["trim"] == "a bow":
        canvas.polygon([(x, y), (x - 11, y - 7), (x - 11, y + 7)], seam)
        canvas.polygon([(x, y), (x + 11, y - 7), (x + 11, y + 7)], seam)
        canvas.ellipse(x, y, 3, 3, WHITE)
    elif item["trim"] == "a buckle":
        canvas.polygon([(x - 8, y - 6), (x + 8, y - 6), (x + 8, y + 6), (x - 8, y + 6)], GOLD)
        canvas.polygon([(x - 4, y - 2), (x + 4, y - 2), (x + 4, y + 2), (x - 4, y + 2)], seam)
    elif item["trim"] == "a star":
        canvas.polygon(star(x, y, 10), WHITE)
        canvas.polygon(star(x, y, 7), GOLD)
