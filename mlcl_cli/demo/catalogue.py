"""The demo's catalogue in the on-disk formats of the three data sets (datasets.md).

Each picture is a combination of attributes and each modifier changes one or two of them, so that neither the picture
(the gallery holds its near-duplicates) nor the modifier (many pictures fit it) is enough to find the target.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mlcl_cli.demo.drawing import COLOURS, GROUNDS, SOLES, THINGS, Attributes, draw_garment, draw_scene, draw_shoe
from mlcl_cli.files import to_json, write_file
from mlcl_cli.seeds import seed_of

Choices = Mapping[str, Sequence[str]]

GARMENTS: Choices = {
    "colour": tuple(COLOURS),
    "pattern": ("plain", "striped", "checked", "dotted"),
    "sleeves": ("sleeveless", "short-sleeved", "long-sleeved"),
    "hem": ("short", "long"),
}
SHOES: Choices = {
    "kind": ("sneaker", "boot", "sandal", "pump", "clog"),
    "colour": tuple(COLOURS),
    "sole": tuple(SOLES),
    "trim": ("plain", "striped", "buckled", "starred"),
}
SCENES: Choices = {
    "thing": tuple(THINGS),
    "count": ("one", "two", "three"),
    "colour": tuple(COLOURS),
    "ground": tuple(GROUNDS),
}
CATEGORIES = ("dress", "shirt", "toptee")


@dataclass(frozen=True, slots=True)
class Described:
    """A training picture, and what it shows in words: `whole`, and `parts` by which a modifier could name it."""

    path: Path
    whole: str
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """From the attributes of `before` to those of `after`; `keys` are what differs."""

    before: Attributes
    after: Attributes
    keys: tuple[str, ...]


def draw_catalogue(folder: Path, datasets: Sequence[str], seed: int = 0) -> list[Described]:
    """Draws `datasets` under `folder`/data and describes their training pictures. `seed` decides everything."""
    return [picture for dataset in datasets for picture in WRITERS[dataset](folder / "data", seed)]


def write_fashioniq(data: Path, seed: int) -> list[Described]:
    """FashionIQ: three categories, two captions a triplet, one for each attribute that changes."""
    root = data / "fashionIQ_dataset"
    described = []
    for category in CATEGORIES:
        for split, size, count in (("train", 192, 500), ("val", 160, 120), ("test", 24, 12)):
            draw = random.Random(seed_of(seed, "fashioniq", category, split))
            products = _sample(GARMENTS, size, draw)
            names = _codes(len(products), draw)
            for name, product in zip(names, products, strict=True):
                shown = {"category": category, **product}
                path = _save(root / f"images/{name}.jpg", draw_garment(shown, draw))
                if split == "train":
                    described.append(Described(path, garment_in_words(shown), tuple(product.values())))
            records: list[dict[str, Any]] = []
            for change in _changes(products, 2, count, draw):
                reference, target = (names[products.index(side)] for side in (change.before, change.after))
                captions = [garment_change(key, change, draw) for key in change.keys]
                known = {} if split == "test" else {"target": target}
                records.append({**known, "candidate": reference, "captions": captions})
            write_file(root / f"captions/cap.{category}.{split}.json", to_json(records, indent=1))
            write_file(root / f"image_splits/split.{category}.{split}.json", to_json(names, indent=1))
    return described


def write_shoes(data: Path, seed: int) -> list[Described]:
    """Shoes as downloaded: name lists, captions in one file, images three levels down."""
    root = data / "shoes"
    described = []
    lists: dict[str, list[str]] = {}
    records: list[dict[str, str]] = []
    number = itertools.count(1)
    for split, size, count in (("train", 480, 1200), ("eval", 320, 240)):
        draw = random.Random(seed_of(seed, "shoes", split))
        products = _sample(SHOES, size, draw)
        names = [f"img_womens_{product['kind']}s_{next(number)}.jpg" for product in products]
        for position, (name, product) in enumerate(zip(names, products, strict=True)):
            place = root / f"images/womens/{product['kind']}s/{position % 4}/{name}"
            path = _save(place, draw_shoe(product, draw))
            if split == "train":
                described.append(Described(path, shoe_in_words(product), tuple(product.values())))
        for change in _changes(products, None, count, draw):
            reference, target = (names[products.index(side)] for side in (change.before, change.after))
            caption = " and ".join(shoe_change(key, change, draw) for key in change.keys)
            records.append({"ImageName": target, "ReferenceImageName": reference, "RelativeCaption": caption})
        lists[f"{split}_im_names.txt"] = names
    random.Random(seed).shuffle(records)
    for file, listed in lists.items():
        write_file(root / "annotations" / file, ("\n".join(listed) + "\n").encode())
    write_file(root / "annotations/relative_captions_shoes.json", to_json(records, indent=1))
    return described


def write_cirr(data: Path, seed: int) -> list[Described]:
    """CIRR: image sets of six that differ in one or two attributes; the last test1 caption is blank."""
    root = data / "cirr_dataset"
    described = []
    pair = itertools.count(1)
    for split, prefix, size, count in (("train", "train", 480, 1200), ("val", "dev", 320, 240), ("test1", "test1", 120, 60)):
        draw = random.Random(seed_of(seed, "cirr", split))
        products = _sample(SCENES, size, draw)
        names = [f"{prefix}-{position}-0-img{position % 2}" for position in range(size)]
        places = {
            name: f"./{prefix}/{position % 8}/{name}.png" if split == "train" else f"./{prefix}/{name}.png"
            for position, name in enumerate(names)
        }
        for name, product in zip(names, products, strict=True):
            path = _save(root / places[name], draw_scene(product, draw))
            if split == "train":
                described.append(Described(path, scene_in_words(product), tuple(product.values())))
        records = [
            _cirr_record(next(pair), change, products, names, split, draw)
            for change in _changes(products, None, count, draw)
        ]
        if split == "test1":
            records[-1]["caption"] = " "
        write_file(root / f"cirr/captions/cap.rc2.{split}.json", to_json(records, indent=1))
        write_file(root / f"cirr/image_splits/split.rc2.{split}.json", to_json(places, indent=1))
    return described


WRITERS: Mapping[str, Callable[[Path, int], list[Described]]] = {
    "fashioniq": write_fashioniq,
    "shoes": write_shoes,
    "cirr": write_cirr,
}


def garment_in_words(product: Attributes) -> str:
    """A garment's whole description."""
    kind = {"dress": "dress", "shirt": "shirt with buttons", "toptee": "top"}[product["category"]]
    return f"a {product['hem']} {product['sleeves']} {product['colour']} {product['pattern']} {kind}"


def shoe_in_words(product: Attributes) -> str:
    """A shoe's whole description."""
    return f"a {product['colour']} {product['trim']} {product['kind']} with a {product['sole']} sole"


def scene_in_words(product: Attributes) -> str:
    """A scene's whole description."""
    return f"{product['count']} {product['colour']} {_plural(product['thing'], product['count'])} {_where(product['ground'])}"


def garment_change(key: str, change: Change, draw: random.Random) -> str:
    """One attribute of a garment as a customer would ask for it."""
    old, new = change.before[key], change.after[key]
    if key == "hem":
        return draw.choice((f"is {new}er", f"is {new} instead of {old}"))
    return draw.choice((f"is {new} instead of {old}", f"is {new}", f"is {new}, not {old}."))


def shoe_change(key: str, change: Change, draw: random.Random) -> str:
    """One attribute of a shoe as a customer would ask for it."""
    old, new = change.before[key], change.after[key]
    if key == "sole":
        return draw.choice((f"has a {new} sole", f"has a {new} instead of a {old} sole"))
    if key == "kind":
        return draw.choice((f"is a {new}", f"is a {new} instead of a {old}"))
    return draw.choice((f"is {new}", f"is {new} instead of {old}"))


def scene_change(key: str, change: Change, draw: random.Random) -> str:
    """One attribute of a scene as an instruction."""
    old, new = change.before[key], change.after[key]
    count = change.after["count"]
    if key == "count":
        return draw.choice((f"show {new} instead of {old}", f"there are {new} of them"))
    if key == "ground":
        return draw.choice((f"put it {_where(new)}", f"same thing {_where(new)}"))
    if key == "thing":
        return draw.choice((f"show {_plural(new, count)} instead", f"replace with {_plural(new, count)}"))
    return draw.choice((f"make it {new}", f"{new} instead of {old}"))


def _cirr_record(
    pair: int, change: Change, products: list[Attributes], names: list[str], split: str, draw: random.Random
) -> dict[str, Any]:
    reference, target = (names[products.index(side)] for side in (change.before, change.after))
    near = sorted(products, key=lambda product: (len(_difference(change.before, product)), draw.random()))
    others = [names[products.index(product)] for product in near if product not in (change.before, change.after)][:4]
    members = [reference, target, *others]
    draw.shuffle(members)
    image_set = {"id": pair, "members": members, "reference_rank": members.index(reference)}
    caption = " and ".join(scene_change(key, change, draw) for key in change.keys)
    record: dict[str, Any] = {"pairid": pair, "reference": reference, "caption": caption, "img_set": image_set}
    if split != "test1":
        record |= {"target_hard": target, "target_soft": {target: 1.0}}
        image_set["target_rank"] = members.index(target)
    return record


def _sample(choices: Choices, size: int, draw: random.Random) -> list[Attributes]:
    """`size` different combinations."""
    every = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    return draw.sample(every, size)  # type: ignore[return-value]


def _changes(products: list[Attributes], keys: int | None, count: int, draw: random.Random) -> Iterator[Change]:
    """`count` pairs of products that differ in `keys` attributes, or in one or two."""
    for _ in range(count):
        wanted = keys or draw.choice((1, 2))
        before = draw.choice(products)
        near = [product for product in products if len(_difference(before, product)) == wanted]
        while not near:
            before = draw.choice(products)
            near = [product for product in products if len(_difference(before, product)) == wanted]
        after = draw.choice(near)
        different = list(_difference(before, after))
        draw.shuffle(different)
        yield Change(before, after, tuple(different))


def _difference(one: Attributes, other: Attributes) -> tuple[str, ...]:
    return tuple(key for key in one if one[key] != other[key])


def _codes(count: int, draw: random.Random) -> list[str]:
    """Names as FashionIQ has them: ten letters and digits, B00…."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    return ["B00" + "".join(draw.choices(letters, k=7)) for _ in range(count)]


def _plural(thing: str, count: str) -> str:
    return thing if count == "one" or thing == "fish" else f"{thing}s"


def _where(ground: str) -> str:
    return {"meadow": "on a meadow", "beach": "on the beach", "night": "at night", "sky": "in the sky"}[ground]


def _save(path: Path, image: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=92)
    return path
