"""FashionIQ (DATASETS.md, Section 2)."""

from pathlib import Path

from mlcl_cli.data.annotations import OnDefect, Record, each, read_names, read_records, refuse
from mlcl_cli.data.layout import find_root, images_by_stem, known_alone, make_split, scan
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.errors import DataError

NAME = "fashioniq"
CATEGORIES = ("dress", "shirt", "toptee")
SPLITS = ("train", "val", "test")
REMEDY = "Set roots.fashioniq to the folder that holds captions/, image_splits/ and images/"
CAPTIONS = 2


def read(root: Path, split: str, images: Path | None = None, on_defect: OnDefect = refuse) -> Split:
    """One query set a category; its gallery is the category's whole split, none in train.

    `images` is the image folder, by default `<root>/images`. A name without a file is given the path it should have.
    Raises DataError where the annotations are missing, damaged or disagree.
    """
    root = find_root(root, "fashionIQ_dataset", ("captions",), REMEDY)
    listed = _listed(root, split)
    known = set[str]().union(*listed.values())
    sets = []
    for category in CATEGORIES:
        names = listed[category, split]
        source = root / "captions" / f"cap.{category}.{split}.json"
        records = read_records(source, remedy=REMEDY, on_defect=on_defect)
        triplets = each(records, lambda record: _triplet(record, split), on_defect)
        triplets = known_alone(source, triplets, known, f"any file of {root / 'image_splits'}", on_defect)
        if split == "val":
            listing = f"the gallery, {_split_file(root, category, split)}"
            targets = [Triplet(triplet.target, None, ()) for triplet in triplets if triplet.target is not None]
            there = {target.reference for target in known_alone(source, targets, set(names), listing, on_defect)}
            triplets = tuple(triplet for triplet in triplets if triplet.target in there)
        sets.append(QuerySet(category, triplets, () if split == "train" else names))
    folder = images or root / "images"
    files = _image_files(folder)
    return make_split(NAME, split, sets, lambda name: files.get(name, folder / f"{name}.jpg"))


def _triplet(record: Record, split: str) -> Triplet:
    captions = record.texts("captions")
    if len(captions) != CAPTIONS:
        raise DataError(
            f"holds {len(captions)} captions, not {CAPTIONS}",
            where=f"{record.where}, field captions",
            remedy="Every FashionIQ triplet has two; either may be blank",
        )
    return Triplet(record.image("candidate"), None if split == "test" else record.image("target"), captions)


def _split_file(root: Path, category: str, split: str) -> Path:
    return root / "image_splits" / f"split.{category}.{split}.json"


def _listed(root: Path, split: str) -> dict[tuple[str, str], tuple[str, ...]]:
    # Every split file: categories and splits share images, and a triplet may name one that only another split lists.
    present = {entry.name for entry in scan(root / "image_splits", REMEDY)}
    files = {(category, name): _split_file(root, category, name) for category in CATEGORIES for name in SPLITS}
    return {
        (category, name): read_names(file, remedy=REMEDY)
        for (category, name), file in files.items()
        if name == split or file.name in present
    }


def _image_files(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each name, the one that counts first."""
    files: dict[str, tuple[Path, ...]] = {}
    for place in (folder, *(folder / category for category in CATEGORIES)):
        for stem, found in images_by_stem(place).items():
            files[stem] = (*files.get(stem, ()), *found)
    return files
