"""Pictures of the demo's catalogue: garments, shoes and small scenes, drawn from their attributes."""

import random
from collections.abc import Callable, Mapping

from PIL import Image, ImageDraw

Attributes = Mapping[str, str]
Box = tuple[float, float, float, float]
SCALE = 4  # pictures are drawn four times as large and reduced, which smooths their edges

COLOURS = {
    "red": (208, 52, 44),
    "orange": (240, 140, 40),
    "yellow": (242, 206, 62),
    "green": (70, 150, 74),
    "blue": (52, 96, 190),
    "purple": (126, 72, 160),
    "pink": (240, 150, 180),
    "black": (44, 44, 50),
}
SOLES = {"grey": (172, 176, 182), "black": (30, 30, 34), "brown": (126, 82, 48), "golden": (222, 176, 60)}
GROUNDS = {"meadow": (176, 214, 142), "beach": (238, 220, 168), "night": (34, 42, 78), "sky": (176, 214, 240)}
PAPER = (247, 245, 240)


class Canvas:
    """A picture with coordinates from 0 to 100 on both axes, shifted and scaled a little as a photographer would."""

    def __init__(self, width: int, height: int, ground: tuple[int, int, int], draw: random.Random) -> None:
        self.size = (width, height)
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), ground)
        self.draw = ImageDraw.Draw(self.image)
        zoom = draw.uniform(0.92, 1.04)
        side = min(width, height) * SCALE * zoom / 100
        self._side = side
        self._left = (width * SCALE - 100 * side) / 2 + draw.uniform(-2, 2) * side
        self._top = (height * SCALE - 100 * side) / 2 + draw.uniform(-2, 2) * side

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a coordinate."""
        return self._left + x * self._side, self._top + y * self._side

    def polygon(self, points: list[tuple[float, float]], fill: object) -> None:
        """A filled outline."""
        self.draw.polygon([self.point(*point) for point in points], fill=fill)  # type: ignore[arg-type]

    def ellipse(self, box: Box, fill: object) -> None:
        """A filled ellipse in a box (left, top, right, bottom)."""
        self.draw.ellipse([self.point(*box[:2]), self.point(*box[2:])], fill=fill)  # type: ignore[arg-type]

    def rectangle(self, box: Box, fill: object) -> None:
        """A filled rectangle."""
        self.draw.rectangle([self.point(*box[:2]), self.point(*box[2:])], fill=fill)  # type: ignore[arg-type]

    def finish(self) -> Image.Image:
        """The picture at its final size."""
        return self.image.resize(self.size, Image.Resampling.LANCZOS)


def draw_garment(attributes: Attributes, draw: random.Random) -> Image.Image:
    """A dress, shirt or toptee by `category`, `colour`, `pattern`, `sleeves` and `hem`."""
    canvas = Canvas(draw.choice((60, 64, 72)), draw.choice((80, 88)), PAPER, draw)
    hem = {"short": 62, "long": 80}[attributes["hem"]] + (16 if attributes["category"] == "dress" else 0)
    flare = 18 if attributes["category"] == "dress" else 2
    body = [(36, 12), (44, 18), (56, 18), (64, 12), (68, 40), (66 + flare, hem), (34 - flare, hem), (32, 40)]
    outlines = [body]
    reach = {"sleeveless": 0.0, "short-sleeved": 16.0, "long-sleeved": 44.0}[attributes["sleeves"]]
    if reach:
        for side in (-1, 1):
            shoulder = [(50 + side * 14, 12), (50 + side * 20, 26)]
            cuff = [(50 + side * (20 + reach * 0.35), 26 + reach), (50 + side * (29 + reach * 0.35), 22 + reach)]
            outlines.append([shoulder[0], shoulder[1], cuff[0], cuff[1]])
    mask = Image.new("L", canvas.image.size, 0)
    pencil = ImageDraw.Draw(mask)
    for outline in outlines:
        pencil.polygon([canvas.point(*point) for point in outline], fill=255)
    colour = COLOURS[attributes["colour"]]
    cloth = Image.new("RGB", canvas.image.size, colour)
    _print_pattern(cloth, canvas, attributes["pattern"], tuple((part + 3 * 255) // 4 for part in colour))
    canvas.image.paste(cloth, mask=mask)
    if attributes["category"] == "shirt":
        canvas.polygon([(44, 14), (50, 24), (56, 14), (53, 12), (47, 12)], PAPER)
        for height in range(30, hem - 6, 9):
            canvas.ellipse((49, height, 51.5, height + 2.5), PAPER)
    elif attributes["category"] == "toptee":
        canvas.ellipse((43, 6, 57, 22), PAPER)
    return canvas.finish()


def draw_shoe(attributes: Attributes, draw: random.Random) -> Image.Image:
    """A shoe by `kind`, `colour`, `sole` and `trim`."""
    canvas = Canvas(draw.choice((84, 88, 96)), draw.choice((60, 68)), PAPER, draw)
    colour, sole = COLOURS[attributes["colour"]], SOLES[attributes["sole"]]
    kind = attributes["kind"]
    upper = {
        "sneaker": [(2, 40), (24, 38), (46, 56), (84, 66), (98, 78), (2, 78)],
        "boot": [(8, 2), (40, 2), (42, 48), (82, 60), (96, 78), (8, 78)],
        "sandal": [(2, 60), (30, 60), (62, 58), (98, 70), (98, 78), (2, 78)],
        "pump": [(2, 34), (16, 36), (34, 62), (62, 58), (98, 76), (60, 78), (24, 70), (4, 56)],
        "clog": [(34, 44), (70, 40), (96, 62), (98, 78), (4, 78), (4, 70), (34, 70)],
    }[kind]
    canvas.polygon(upper, colour)
    if kind == "sandal":
        for left in (8, 62):
            canvas.polygon([(left, 72), (left + 12, 36), (left + 20, 36), (left + 26, 72)], colour)
    if kind == "pump":
        canvas.polygon([(3, 54), (14, 62), (8, 92), (3, 92)], sole)
        canvas.polygon([(24, 70), (60, 78), (98, 76), (98, 82), (58, 84), (20, 76)], sole)
    else:
        canvas.rectangle((2, 78, 98, 78 + {"clog": 14, "sneaker": 9}.get(kind, 6)), sole)
    _trim(canvas, attributes["trim"], kind)
    return canvas.finish()


def draw_scene(attributes: Attributes, draw: random.Random) -> Image.Image:
    """A few equal things outdoors by `thing`, `count`, `colour` and `ground`."""
    canvas = Canvas(draw.choice((72, 80, 92)), draw.choice((64, 72)), GROUNDS[attributes["ground"]], draw)
    _decorate(canvas, attributes["ground"])
    count = {"one": 1, "two": 2, "three": 3}[attributes["count"]]
    places = {1: [(50, 56, 30)], 2: [(27, 58, 22), (73, 56, 22)], 3: [(22, 62, 18), (52, 46, 18), (80, 66, 18)]}[count]
    for x, y, radius in places:
        size = radius * draw.uniform(0.92, 1.08)
        THINGS[attributes["thing"]](canvas, x + draw.uniform(-3, 3), y, size, COLOURS[attributes["colour"]])
    return canvas.finish()


def _print_pattern(cloth: Image.Image, canvas: Canvas, pattern: str, light: tuple[int, ...]) -> None:
    pencil = ImageDraw.Draw(cloth)
    if pattern in ("striped", "checked"):
        for y in range(4, 104, 12):
            pencil.rectangle([canvas.point(0, y), canvas.point(100, y + 4)], fill=light)
    if pattern == "checked":
        for x in range(3, 100, 12):
            pencil.rectangle([canvas.point(x, 0), canvas.point(x + 4, 104)], fill=light)
    if pattern == "dotted":
        for row, y in enumerate(range(8, 104, 11)):
            for x in range(2 + 6 * (row % 2), 100, 12):
                pencil.ellipse([canvas.point(x, y), canvas.point(x + 5.5, y + 5.5)], fill=light)


def _trim(canvas: Canvas, trim: str, kind: str) -> None:
    light = (252, 250, 244)
    x = {"boot": 24, "clog": 66, "sandal": 44}.get(kind, 40)
    y = {"sandal": 60, "pump": 66}.get(kind, 58)
    if trim == "striped":
        for shift in (0, 8, 16):
            canvas.polygon([(x + shift, y + 12), (x + shift + 5, y - 2), (x + shift + 9, y), (x + shift + 4, y + 12)], light)
    elif trim == "buckled":
        canvas.rectangle((x, y - 4, x + 18, y + 10), (226, 190, 80))
        canvas.rectangle((x + 5, y + 1, x + 13, y + 5), PAPER)
    elif trim == "starred":
        _star(canvas, x + 8, y + 3, 10, light)


def _decorate(canvas: Canvas, ground: str) -> None:
    width, height = canvas.image.size
    if ground == "night":
        canvas.ellipse((80, 4, 94, 18), (246, 240, 200))
        for x, y in ((10, 12), (32, 6), (56, 14), (66, 4)):
            canvas.ellipse((x, y, x + 2.5, y + 2.5), (246, 240, 200))
    elif ground == "sky":
        for x, y in ((6, 10), (62, 6)):
            canvas.ellipse((x, y, x + 26, y + 12), (255, 255, 255))
    elif ground == "beach":
        canvas.draw.rectangle((0, 0, width, height // 3), fill=(120, 190, 220))
    else:
        canvas.draw.rectangle((0, 0, width, height // 4), fill=(196, 226, 246))


def _ball(canvas: Canvas, x: float, y: float, r: float, colour: tuple[int, int, int]) -> None:
    canvas.ellipse((x - r, y - r, x + r, y + r), colour)
    canvas.ellipse((x - r / 2, y - r / 1.6, x, y - r / 6), (255, 255, 255))


def _house(canvas: Canvas, x: float, y: float, r: float, colour: tuple[int, int, int]) -> None:
    canvas.rectangle((x - r, y - r / 4, x + r, y + r), colour)
    canvas.polygon([(x - r * 1.2, y - r / 4), (x, y - r * 1.2), (x + r * 1.2, y - r / 4)], (112, 74, 52))
    canvas.rectangle((x - r / 4, y + r / 4, x + r / 4, y + r), (250, 244, 220))


def _star(canvas: Canvas, x: float, y: float, r: float, colour: tuple[int, int, int]) -> None:
    outline = [(0, -1), (0.25, -0.32), (0.95, -0.31), (0.4, 0.12), (0.59, 0.81), (0, 0.4), (-0.59, 0.81)]
    outline += [(-0.4, 0.12), (-0.95, -0.31), (-0.25, -0.32)]
    canvas.polygon([(x + r * px, y + r * py) for px, py in outline], colour)


def _fish(canvas: Canvas, x: float, y: float, r: float, colour: tuple[int, int, int]) -> None:
    canvas.ellipse((x - r, y - r / 1.7, x + r / 1.6, y + r / 1.7), colour)
    canvas.polygon([(x + r / 2.4, y), (x + r * 1.2, y - r / 1.6), (x + r * 1.2, y + r / 1.6)], colour)
    canvas.ellipse((x - r / 1.5, y - r / 4, x - r / 2.4, y), (255, 255, 255))


def _bottle(canvas: Canvas, x: float, y: float, r: float, colour: tuple[int, int, int]) -> None:
    canvas.rectangle((x - r / 2, y - r / 4, x + r / 2, y + r * 1.1), colour)
    canvas.polygon([(x - r / 2, y - r / 4), (x - r / 5, y - r * 0.8), (x + r / 5, y - r * 0.8), (x + r / 2, y - r / 4)], colour)
    canvas.rectangle((x - r / 5, y - r * 1.2, x + r / 5, y - r * 0.75), (90, 90, 90))
    canvas.rectangle((x - r / 2, y + r / 5, x + r / 2, y + r * 0.7), (252, 250, 244))


def _tree(canvas: Canvas, x: float, y: float, r: float, colour: tuple[int, int, int]) -> None:
    canvas.rectangle((x - r / 6, y, x + r / 6, y + r * 1.1), (112, 74, 52))
    canvas.polygon([(x - r, y + r / 3), (x, y - r * 1.2), (x + r, y + r / 3)], colour)


Thing = Callable[[Canvas, float, float, float, tuple[int, int, int]], None]
THINGS: Mapping[str, Thing] = {
    "ball": _ball,
    "house": _house,
    "star": _star,
    "fish": _fish,
    "bottle": _bottle,
    "tree": _tree,
}
