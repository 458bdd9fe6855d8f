"""FashionIQ (DATASETS.md, Section 2)."""

from pathlib import Path

from pydantic import field_validator

from mlcl_cli.data.annotations import ImageName, OnDefect, Record, Text, read_names, read_records
from mlcl_cli.data.definition import DataSet, Folders, Published
from mlcl_cli.data.layout import find_root, images_by_stem, keep_listed, make_split, scan
from mlcl_cli.data.protocols import (
    FASHIONIQ_ORIGINAL,
    FASHIONIQ_ORIGINAL_NOREF,
    FASHIONIQ_VAL,
    FASHIONIQ_VAL_NOREF,
)
from mlcl_cli.data.records import QuerySet, Split, Triplet

NAME = "fashioniq"
CATEGORIES = ("dress", "shirt", "toptee")
SPLITS = ("train", "val", "test")
REMEDY = "Set roots.fashioniq to the folder that contains captions/, image_splits/ and images/"


class _Query(Record):
    candidate: ImageName
    captions: list[Text]

    @field_validator("captions")
    @classmethod
    def _two(cls, captions: list[str]) -> list[str]:
        if len(captions) != 2:
            raise ValueError(f"expected 2 captions, got {len(captions)}; either may be blank")
        return captions


class _Labeled(_Query):
    target: ImageName


def _triplet(record: _Query, _where: str) -> Triplet:
    target = record.target if isinstance(record, _Labeled) else None
    return Triplet(record.candidate, target, tuple(record.captions))


def read(root: Path, split: str, _folders: Folders, on_defect: OnDefect) -> Split:
    """One query set per category; its gallery is the category's whole split, empty in train.

    A name without a file is given the path it should have.
    Raises DataError if the annotations are missing, damaged or contradictory.
    """
    root = find_root(root, "fashionIQ_dataset", ("captions",), REMEDY)
    listings = root / "image_splits"
    present = {entry.name for entry in scan(listings, REMEDY)}
    # Every split file: categories and splits share images, and a triplet may name one that only another split lists.
    listed = {
        (category, name): read_names(listings / file, REMEDY)
        for category in CATEGORIES
        for name in SPLITS
        if (file := f"split.{category}.{name}.json") in present or name == split
    }
    in_any_split = set[str]().union(*listed.values())
    sets = []
    for category in CATEGORIES:
        names = listed[category, split]
        source = root / "captions" / f"cap.{category}.{split}.json"
        model = _Query if split == "test" else _Labeled
        triplets = read_records(source, model, _triplet, remedy=REMEDY, on_defect=on_defect)
        triplets = keep_listed(source, triplets, Triplet.images, in_any_split, f"any file of {listings}", on_defect)
        if split == "val":
            gallery = f"the gallery, {listings / f'split.{category}.{split}.json'}"
            triplets = keep_listed(source, triplets, lambda t: (t.target or "",), set(names), gallery, on_defect)
        sets.append(QuerySet(category, triplets, () if split == "train" else names))
    folder = root / "images"
    files = images_by_stem([folder, *(folder / category for category in CATEGORIES)])
    return make_split(NAME, split, sets, lambda name: files.get(name, (folder / f"{name}.jpg",)))


FASHIONIQ = DataSet(
    name=NAME,
    root="data/fashionIQ_dataset",
    read=read,
    splits=SPLITS,
    protocols=(FASHIONIQ_ORIGINAL, FASHIONIQ_ORIGINAL_NOREF, FASHIONIQ_VAL, FASHIONIQ_VAL_NOREF),
    published={"train": Published(18_000), "val": Published(6_016, 15_536), "test": Published(6_118, 15_538)},
)
