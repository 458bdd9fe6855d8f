"""The demo's catalog in the on-disk formats of the three data sets.

Every image is a combination of attributes, and a caption changes one or two of them. Neither the reference alone is
enough (the gallery holds its near-duplicates) nor the caption alone (it fits many images, and some captions mean
nothing without the reference: "has longer sleeves", "swap the colours").
"""

import csv
import io
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path

from mlcl_cli.atomic_files import to_json
from mlcl_cli.demo import ROOTS
from mlcl_cli.demo.drawings import DRAWINGS, PAINTERS
from mlcl_cli.demo.vocabulary import KINDS, Item, Pair, make_pairs, make_pool, read_text
from mlcl_cli.seeding import derive_seed

# Images and triplets of each split.
FASHIONIQ = {"train": (340, 800), "val": (200, 90), "test": (24, 12)}  # of each category
SHOES = {"train": (500, 2400), "eval": (280, 240)}
CIRR = {"train": (500, 2400), "val": (280, 240), "test1": (60, 30)}
# Where the shoes' tables and their profile are; `mlcl make-triplets` makes the profile's table of triplets.
CATALOG_PROFILE = f"{ROOTS['shoes']}/mlcl.yaml"
CATALOG_DATA = """\
datasets:
  catalog:
    images: images
    triplets: triplets.csv    # see the guide, "Triplets from a catalog"
    gallery: gallery.csv"""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """A training image in words: a full description, and short phrases that are true of it."""

    path: Path
    description: str
    phrases: tuple[str, ...]


def draw_catalog(folder: Path, datasets: Sequence[str] = tuple(ROOTS), seed: int = 0) -> list[TrainingImage]:
    """Draw `datasets` under `folder` and return their training images. `seed` decides every byte."""
    return [image for name in datasets for image in WRITERS[name](folder / ROOTS[name], seed)]


def write_fashioniq(root: Path, seed: int) -> Iterator[TrainingImage]:
    """Write FashionIQ: three categories; each of a triplet's two captions names a part of the change."""
    for category, (split, (size, triplets)) in product(DRAWINGS.garments, FASHIONIQ.items()):
        draw = random.Random(derive_seed(seed, "fashioniq", category, split))
        items = make_pool(KINDS[category], size, draw)
        names = ["B00" + "".join(draw.choices(LETTERS, k=7)) for _ in items]
        drawn = _draw_images(category, items, [root / f"images/{name}.jpg" for name in names], draw)
        records = [
            ({} if split == "test" else {"target": names[pair.target]})
            | {"candidate": names[pair.reference], "captions": pair.captions}
            for pair in make_pairs(KINDS[category], items, triplets, draw)
        ]
        _write(root / f"captions/cap.{category}.{split}.json", records)
        _write(root / f"image_splits/split.{category}.{split}.json", names)
        if split == "train":
            yield from drawn


def write_shoes(root: Path, seed: int) -> Iterator[TrainingImage]:
    """Write Shoes as downloaded, for `mlcl prepare-shoes`: lists of names, one caption file, nested image folders.

    Also write what someone has who starts from a catalog: the training images and their attributes, templates of
    captions, the gallery of validation images, the annotated validation queries, and a profile.
    """
    records: list[dict[str, str]] = []
    number = count(1)
    for split, (size, triplets) in SHOES.items():
        draw = random.Random(derive_seed(seed, "shoes", split))
        items = make_pool(KINDS["shoe"], size, draw)
        names = [f"img_womens_{item['style']}s_{next(number)}.jpg" for item in items]
        folders = [root / f"images/womens_{item['style']}s/{row % 4}" for row, item in enumerate(items)]
        drawn = _draw_images("shoe", items, list(map(Path.joinpath, folders, names)), draw)
        pairs = make_pairs(KINDS["shoe"], items, triplets, draw)
        for pair in pairs:
            target, reference = names[pair.target], names[pair.reference]
            records.append({"ImageName": target, "ReferenceImageName": reference, "RelativeCaption": pair.sentence})
        _write(root / f"annotations/{split}_im_names.txt", "\n".join(names) + "\n")
        images = [f"{folder.relative_to(root / 'images')}/{name}" for folder, name in zip(folders, names, strict=True)]
        if split == "train":
            products = [(image, *item.values()) for image, item in zip(images, items, strict=True)]
            _write_table(root / "products.csv", ("image", *KINDS["shoe"].attributes), products)
            yield from drawn
        else:
            queries = [(images[pair.reference], images[pair.target], pair.sentence, "val") for pair in pairs]
            _write_table(root / "gallery.csv", ("image",), [(image,) for image in images])
            _write_table(root / "queries.csv", ("reference", "target", "caption", "split"), queries)
    _write(root / "captions.yaml", read_text("shoe_captions.yaml"))
    _write(root / "mlcl.yaml", _profile("catalog", CATALOG_DATA, clip="../../clip.pt"))
    random.Random(derive_seed(seed, "shoes")).shuffle(records)
    _write(root / "annotations/relative_captions_shoes.json", records)


def write_cirr(root: Path, seed: int) -> Iterator[TrainingImage]:
    """Write CIRR: a set of six look-alikes for each pair; one caption of test1 is blank, as in the original."""
    pair_id = count()
    for split, (size, triplets) in CIRR.items():
        draw = random.Random(derive_seed(seed, "cirr", split))
        items = make_pool(KINDS["scene"], size, draw)
        folder = "dev" if split == "val" else split
        names = [f"{folder}-{row}-{row % 3}-img{row % 2}" for row in range(size)]
        folders = [f"./{folder}/{row % 10}" if split == "train" else f"./{folder}" for row in range(size)]
        files = {name: f"{folder}/{name}.png" for name, folder in zip(names, folders, strict=True)}
        drawn = _draw_images("scene", items, [root / file for file in files.values()], draw)
        records = []
        for number, pair in enumerate(make_pairs(KINDS["scene"], items, triplets, draw)):
            members = [pair.reference, pair.target, *_look_alikes(pair, items, draw)]
            draw.shuffle(members)
            image_set: dict[str, object] = {"id": number, "members": [names[member] for member in members]}
            image_set["reference_rank"] = members.index(pair.reference)
            record: dict[str, object] = {"pairid": next(pair_id), "reference": names[pair.reference]}
            if split != "test1":
                record |= {"target_hard": names[pair.target], "target_soft": {names[pair.target]: 1.0}}
                image_set["target_rank"] = members.index(pair.target)
            records.append(record | {"caption": pair.sentence, "img_set": image_set})
        if split == "test1":
            records[-1]["caption"] = ""
        _write(root / f"cirr/captions/cap.rc2.{split}.json", records)
        _write(root / f"cirr/image_splits/split.rc2.{split}.json", files)
        if split == "train":
            yield from drawn


def profile_text(dataset: str) -> str:
    """The profile that `mlcl demo` writes for a data set, relative to the demo's folder."""
    return _profile(dataset, f"roots:\n  {dataset}: {ROOTS[dataset]}", clip="clip.pt")


WRITERS: Mapping[str, Callable[[Path, int], Iterator[TrainingImage]]] = {
    "fashioniq": write_fashioniq,
    "shoes": write_shoes,
    "cirr": write_cirr,
}


def _profile(dataset: str, data: str, clip: str) -> str:
    return read_text("profile.yaml").format(dataset=dataset, data=data, clip=clip)


def _draw_images(kind: str, items: Sequence[Item], paths: Sequence[Path], draw: random.Random) -> list[TrainingImage]:
    for item, path in zip(items, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        PAINTERS[kind](item, draw).save(path, quality=92)
    return [TrainingImage(path, *KINDS[kind].describe(item)) for item, path in zip(items, paths, strict=True)]


def _look_alikes(pair: Pair, items: Sequence[Item], draw: random.Random) -> list[int]:
    """Four rows nearest to the reference, and among those equally near the ones nearest to the target."""

    def distance(row: int, other: int) -> int:
        return sum(items[row][key] != items[other][key] for key in items[row])

    others = [row for row in range(len(items)) if row not in (pair.reference, pair.target)]
    draw.shuffle(others)
    others.sort(key=lambda row: (distance(pair.reference, row), distance(pair.target, row)))
    return others[:4]


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([columns, *rows])
    _write(path, table.getvalue())


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else to_json(content, indent=2))
