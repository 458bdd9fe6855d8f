"""The demo's catalog in the on-disk formats of the three data sets (DATASETS.md).

Every picture is a combination of attributes, and a modifier changes one or two of them. Neither the reference alone
is enough (the gallery holds its near-duplicates) nor the modifier alone (many pictures fit it, and some modifiers
mean nothing without the reference: "has longer sleeves", "swap the colours").
"""

import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mlcl_cli.atomic_files import to_json
from mlcl_cli.demo.attributes import Item, Kind, Pair, distance, make_pairs, make_pool
from mlcl_cli.demo.footwear import draw_shoe
from mlcl_cli.demo.garments import draw_garment
from mlcl_cli.demo.scenes import draw_scene
from mlcl_cli.demo.vocabulary import GARMENTS, SCENE, SHOE
from mlcl_cli.seeding import derive_seed

# Images and triplets of each split.
FASHIONIQ = {"train": (340, 800), "val": (200, 90), "test": (24, 12)}  # of each category
SHOES = {"train": (500, 2400), "eval": (280, 240)}
CIRR = {"train": (500, 2400), "val": (280, 240), "test1": (60, 30)}
CIRR_FOLDERS = {"train": "train", "val": "dev", "test1": "test1"}
MEMBERS = 6
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@dataclass(frozen=True, slots=True)
class Described:
    """A training picture in words: `whole` is a full description, `parts` are short phrases that are true of it."""

    path: Path
    whole: str
    parts: tuple[str, ...]


Paint = Callable[[Item, random.Random], Image.Image]


def draw_catalog(
    folder: Path, datasets: Sequence[str] = ("fashioniq", "shoes", "cirr"), seed: int = 0
) -> list[Described]:
    """Draws `datasets` under `folder`/data and returns their training pictures in words. `seed` decides every byte."""
    return [picture for name in datasets for picture in WRITERS[name](folder / "data", seed)]


def write_fashioniq(data: Path, seed: int) -> list[Described]:
    """FashionIQ: three categories; two captions a triplet, each of which tells a part of the change."""
    root = data / "fashionIQ_dataset"
    described: list[Described] = []
    for category, kind in GARMENTS.items():
        for split, (images, triplets) in FASHIONIQ.items():
            draw = random.Random(derive_seed(seed, "fashioniq", category, split))
            pool = make_pool(kind, images, (1, 2, 2), draw)
            names = ["B00" + "".join(draw.choices(LETTERS, k=7)) for _ in pool]
            paths = [root / f"images/{name}.jpg" for name in names]
            pictures = _save_all(kind, pool, paths, functools.partial(_paint_garment, category), draw)
            described += pictures if split == "train" else ()
            pairs = make_pairs(kind, pool, triplets, (2,), draw)
            records = [
                ({} if split == "test" else {"target": names[pair.target]})
                | {"candidate": names[pair.reference], "captions": list(pair.modifiers)}
                for pair in pairs
            ]
            _write(root / f"captions/cap.{category}.{split}.json", to_json(records, indent=2))
            _write(root / f"image_splits/split.{category}.{split}.json", to_json(names, indent=2))
    return described


def write_shoes(data: Path, seed: int) -> list[Described]:
    """Shoes as downloaded, for `mlcl prepare-shoes`: name lists, one caption file, images three levels down."""
    root = data / "shoes"
    described: list[Described] = []
    records: list[dict[str, str]] = []
    count = 0
    for split, (images, triplets) in SHOES.items():
        draw = random.Random(derive_seed(seed, "shoes", split))
        pool = make_pool(SHOE, images, (1, 1, 2), draw)
        types = [item["kind"].replace(" ", "_") + "s" for item in pool]
        names = [f"img_womens_{kind}_{number}.jpg" for number, kind in enumerate(types, count + 1)]
        count += len(pool)
        paths = [
            root / f"images/womens_{kind}/{row % 4}/{name}"
            for row, (kind, name) in enumerate(zip(types, names, strict=True))
        ]
        pictures = _save_all(SHOE, pool, paths, draw_shoe, draw)
        described += pictures if split == "train" else ()
        for pair in make_pairs(SHOE, pool, triplets, (1, 2), draw):
            target, reference = names[pair.target], names[pair.reference]
            caption = " and ".join(pair.modifiers)
            records.append({"ImageName": target, "ReferenceImageName": reference, "RelativeCaption": caption})
        _write(root / f"annotations/{split}_im_names.txt", ("\n".join(names) + "\n").encode())
    random.Random(derive_seed(seed, "shoes")).shuffle(records)
    _write(root / "annotations/relative_captions_shoes.json", to_json(records, indent=2))
    return described


def write_cirr(data: Path, seed: int) -> list[Described]:
    """CIRR: a set of six look-alikes for each pair; one caption of test1 is blank, as in the original."""
    root = data / "cirr_dataset"
    described: list[Described] = []
    pair_id = 0
    for split, (images, triplets) in CIRR.items():
        draw = random.Random(derive_seed(seed, "cirr", split))
        pool = make_pool(SCENE, images, (1, 1, 2), draw)
        folder = CIRR_FOLDERS[split]
        names = [f"{folder}-{row}-{row % 3}-img{row % 2}" for row in range(len(pool))]
        below = [f"{folder}/{row % 10}" if split == "train" else folder for row in range(len(pool))]
        places = {name: f"./{place}/{name}.png" for name, place in zip(names, below, strict=True)}
        pictures = _save_all(SCENE, pool, [root / place for place in places.values()], draw_scene, draw)
        described += pictures if split == "train" else ()
        records = [
            {"pairid": pair_id + row, **_cirr_record(pair, pool, names, split, row, draw)}
            for row, pair in enumerate(make_pairs(SCENE, pool, triplets, (1, 2), draw))
        ]
        pair_id += len(records)
        if split == "test1":
            records[-1]["caption"] = ""
        _write(root / f"cirr/captions/cap.rc2.{split}.json", to_json(records, indent=2))
        _write(root / f"cirr/image_splits/split.rc2.{split}.json", to_json(places, indent=2))
    return described


WRITERS: Mapping[str, Callable[[Path, int], list[Described]]] = {
    "fashioniq": write_fashioniq,
    "shoes": write_shoes,
    "cirr": write_cirr,
}


def _cirr_record(
    pair: Pair, pool: Sequence[Item], names: Sequence[str], split: str, number: int, draw: random.Random
) -> dict[str, Any]:
    members = [pair.reference, pair.target, *_look_alikes(pair, pool, draw)]
    draw.shuffle(members)
    image_set = {
        "id": number,
        "members": [names[member] for member in members],
        "reference_rank": members.index(pair.reference),
    }
    target = {}
    if split != "test1":
        target = {"target_hard": names[pair.target], "target_soft": {names[pair.target]: 1.0}}
        image_set["target_rank"] = members.index(pair.target)
    return {
        "reference": names[pair.reference],
        **target,
        "caption": " and ".join(pair.modifiers),
        "img_set": image_set,
    }


def _look_alikes(pair: Pair, pool: Sequence[Item], draw: random.Random) -> Iterator[int]:
    """The rows nearest to the reference, and of those equally near the ones nearest to the target."""
    reference, target = pool[pair.reference], pool[pair.target]
    others = [row for row in range(len(pool)) if row not in (pair.reference, pair.target)]
    draw.shuffle(others)
    others.sort(key=lambda row: (distance(reference, pool[row]), distance(target, pool[row])))
    yield from others[: MEMBERS - 2]


def _save_all(
    kind: Kind, pool: Sequence[Item], paths: Sequence[Path], paint: Paint, draw: random.Random
) -> list[Described]:
    described = []
    for item, path in zip(pool, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        paint(item, draw).save(path, quality=92)
        words = kind.words(item)
        parts = tuple(part.format(**words) for part in kind.parts)
        described.append(Described(path, kind.whole.format(**words), parts))
    return described


def _paint_garment(category: str, item: Item, draw: random.Random) -> Image.Image:
    return draw_garment({**item, "category": category}, draw)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
