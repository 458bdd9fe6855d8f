"""Everyday scenes with toy animals: what they differ in, and how they are drawn."""

import random
from collections.abc import Callable, Mapping

from PIL import Image

from mlcl_cli.demo.canvas import WHITE, Canvas, Colour, curve, darker, varied

COLOURS: Mapping[str, Colour] = {
    "yellow": (246, 200, 60),
    "blue": (66, 120, 214),
    "pink": (244, 148, 178),
    "brown": (136, 88, 54),
    "grey": (150, 152, 160),
    "red": (206, 48, 48),
}
INK: Colour = (40, 36, 40)
# Sky (or wall) and ground by day.
PLACES: Mapping[str, tuple[Colour, Colour]] = {
    "meadow": ((190, 224, 246), (150, 200, 112)),
    "beach": ((198, 232, 248), (240, 220, 164)),
    "snow": ((214, 226, 238), (248, 250, 253)),
    "room": ((246, 226, 190), (196, 150, 104)),
}
HORIZON = 44.0
SPOTS = {"one": ((46.0, 70.0, 1.5),), "two": ((28.0, 68.0, 1.15), (66.0, 72.0, 1.15)),
         "three": ((18.0, 68.0, 0.9), (46.0, 73.0, 0.9), (74.0, 68.0, 0.9))}  # fmt: skip


def draw_scene(item: Mapping[str, str], draw: random.Random) -> Image.Image:
    """Animals and a companion piece in a place by day or night."""
    canvas = Canvas(draw.choice((88, 92, 96)), draw.choice((72, 76, 80)), 100, WHITE, draw)
    night = item["time"] == "night"
    _place(canvas, item["place"], night)
    animal, thing = (varied(COLOURS[item[part]], draw) for part in ("colour", "thing_colour"))
    COMPANIONS[item["thing"]](canvas, thing)
    for x, y, size in SPOTS[item["count"]]:
        scale = size * draw.uniform(0.94, 1.06)
        ANIMALS[item["animal"]](Toy(canvas, x + draw.uniform(-2, 2), y + draw.uniform(-1.5, 1.5), scale), animal)
    return canvas.finished()


class Toy:
    """A canvas around a spot: the origin is where the animal stands, ten units are its usual half width."""

    def __init__(self, canvas: Canvas, x: float, y: float, scale: float) -> None:
        self._canvas, self._x, self._y, self._scale = canvas, x, y, scale

    def blob(self, x: float, y: float, wide: float, high: float, fill: Colour) -> None:
        """An ellipse."""
        scale = self._scale
        self._canvas.ellipse(self._x + x * scale, self._y + y * scale, wide * scale, high * scale, fill)

    def shape(self, *points: tuple[float, float], fill: Colour) -> None:
        """A polygon."""
        self._canvas.polygon([(self._x + x * self._scale, self._y + y * self._scale) for x, y in points], fill)

    def stroke(self, *points: tuple[float, float], fill: Colour, width: float) -> None:
        """A line."""
        placed = [(self._x + x * self._scale, self._y + y * self._scale) for x, y in points]
        self._canvas.line(placed, fill, width * self._scale)

    def eye(self, x: float, y: float) -> None:
        """An eye with a glint."""
        self.blob(x, y, 1.2, 1.4, INK)
        self.blob(x + 0.4, y - 0.5, 0.4, 0.4, WHITE)


def _place(canvas: Canvas, place: str, night: bool) -> None:
    sky, ground = PLACES[place]
    if night:
        sky, ground = (30, 38, 84), darker(ground, 0.55)
        if place == "room":
            sky = (96, 78, 92)
    canvas.polygon([(-10, -10), (110, -10), (110, 110), (-10, 110)], ground)
    canvas.polygon([(-10, -10), (110, -10), (110, HORIZON), (-10, HORIZON)], sky)
    if place == "room":
        _window(canvas, night)
        return
    if night:
        canvas.ellipse(14, 12, 6, 6, (248, 240, 200))
        canvas.ellipse(17, 10, 5, 5, sky)
        for x, y in ((34, 8), (44, 18), (58, 6), (70, 14), (30, 24)):
            canvas.ellipse(x, y, 0.9, 0.9, WHITE)
    else:
        canvas.ellipse(14, 12, 6.5, 6.5, (252, 214, 84))
        for x, y in ((38, 12), (44, 9), (50, 12)):
            canvas.ellipse(x, y, 7, 4, WHITE)
    if place == "meadow":
        canvas.ellipse(30, HORIZON + 16, 50, 20, darker(ground, 0.9))
    elif place == "beach":
        sea = darker((74, 164, 206), 0.6 if night else 1)
        canvas.polygon([(-10, 34), (110, 34), (110, HORIZON), (-10, HORIZON)], sea)
    else:
        for x in (8, 92):
            canvas.polygon([(x - 7, 46), (x, 22), (x + 7, 46)], darker((84, 140, 110), 0.6 if night else 1))
            canvas.polygon([(x - 3, 32), (x, 22), (x + 3, 32)], WHITE)


def _window(canvas: Canvas, night: bool) -> None:
    glass = (30, 38, 84) if night else (190, 224, 246)
    canvas.polygon([(6, 6), (34, 6), (34, 32), (6, 32)], WHITE)
    for left in (8, 21):
        canvas.polygon([(left, 8), (left + 11, 8), (left + 11, 30), (left, 30)], glass)
    canvas.line([(-10, HORIZON), (110, HORIZON)], WHITE, 2)


def _dog(toy: Toy, colour: Colour) -> None:
    dark = darker(colour, 0.68)
    toy.stroke((-9, -8), (-13, -15), fill=dark, width=2.2)
    for x in (-7, -3, 4, 7):
        toy.shape((x - 1.4, -5), (x + 1.4, -5), (x + 1.4, 0), (x - 1.4, 0), fill=dark)
    toy.blob(0, -7.5, 10.5, 5, colour)
    toy.blob(10, -14, 5.6, 5.2, colour)
    toy.blob(15, -12.5, 3.4, 2.6, colour)
    toy.blob(17.6, -13.4, 1.3, 1.1, INK)
    toy.blob(7, -13, 2.2, 5, dark)
    toy.eye(11.5, -15.5)


def _cat(toy: Toy, colour: Colour) -> None:
    dark = darker(colour, 0.68)
    toy.stroke(*curve((-6, -3), (-17, -3), (-13, -16)), fill=dark, width=2)
    toy.blob(0, -7.5, 7.5, 8, colour)
    toy.blob(-3.4, -1.2, 3.2, 1.8, dark)
    toy.blob(3.4, -1.2, 3.2, 1.8, dark)
    for side in (-1, 1):
        toy.shape((side * 6.8, -17), (side * 6, -26.5), (side * 0.6, -20.5), fill=dark)
        toy.stroke((side * 3, -14.5), (side * 10, -15.5), fill=INK, width=0.5)
        toy.stroke((side * 3, -13.6), (side * 10, -12.6), fill=INK, width=0.5)
    toy.blob(0, -16.5, 7, 6, colour)
    toy.eye(-2.8, -17.5)
    toy.eye(2.8, -17.5)
    toy.shape((-1, -15), (1, -15), (0, -13.8), fill=INK)


def _rabbit(toy: Toy, colour: Colour) -> None:
    dark = darker(colour, 0.68)
    for x in (-3.2, 3.2):
        toy.blob(x, -25, 2.3, 7.5, colour)
        toy.blob(x, -25, 1.1, 5.5, (250, 206, 214))
    toy.blob(-7, -4.5, 3, 3, WHITE)
    toy.blob(0, -6.5, 7.5, 7, colour)
    toy.blob(0, -5.5, 4, 5, WHITE)
    toy.blob(-4, -0.8, 3.6, 1.6, dark)
    toy.blob(4, -0.8, 3.6, 1.6, dark)
    toy.blob(0, -15, 5.8, 5.4, colour)
    toy.eye(-2.3, -16)
    toy.eye(2.3, -16)
    toy.blob(0, -13.4, 1, 0.8, INK)


def _duck(toy: Toy, colour: Colour) -> None:
    beak = (240, 130, 40)
    toy.stroke((-1, -2), (-1, 1), fill=beak, width=1.6)
    toy.stroke((3, -2), (3, 1), fill=beak, width=1.6)
    toy.shape((-15, -12), (-6, -10), (-6, -4), fill=colour)
    toy.blob(0, -6.5, 10.5, 6, colour)
    toy.blob(-1, -7.5, 5.5, 3.4, darker(colour, 0.72))
    toy.blob(8, -16.5, 5, 5, colour)
    toy.shape((5, -14), (11, -14), (9, -7), (2, -8), fill=colour)
    toy.shape((12, -18), (19, -15.6), (12, -14), fill=beak)
    toy.eye(9.4, -18)


def _balloon(canvas: Canvas, colour: Colour) -> None:
    canvas.line(curve((84, 36), (88, 46), (84, 58)), INK, 0.8)
    canvas.ellipse(84, 22, 11, 13, colour)
    canvas.polygon([(84, 33), (81.5, 38), (86.5, 38)], colour)
    canvas.ellipse(80, 17, 2.5, 4, WHITE)


def _umbrella(canvas: Canvas, colour: Colour) -> None:
    canvas.line([(82, 22), (82, 60)], (120, 84, 56), 1.6)
    canvas.polygon([*curve((62, 30), (66, 6), (82, 8)), *curve((82, 8), (98, 6), (102, 30))], colour)
    canvas.polygon([*curve((75, 30), (76, 12), (82, 8)), *curve((82, 8), (88, 12), (89, 30))], WHITE)


def _kite(canvas: Canvas, colour: Colour) -> None:
    canvas.line([*curve((80, 32), (74, 46), (84, 50)), *curve((84, 50), (92, 54), (86, 60))], INK, 0.8)
    canvas.polygon([(84, 4), (96, 16), (80, 34), (72, 14)], colour)
    canvas.line([(84, 4), (80, 34)], WHITE, 1.2)
    canvas.line([(96, 16), (72, 14)], WHITE, 1.2)


ANIMALS: Mapping[str, Callable[[Toy, Colour], None]] = {"dog": _dog, "cat": _cat, "rabbit": _rabbit, "duck": _duck}
COMPANIONS: Mapping[str, Callable[[Canvas, Colour], None]] = {
    "balloon": _balloon,
    "umbrella": _umbrella,
    "kite": _kite,
}
