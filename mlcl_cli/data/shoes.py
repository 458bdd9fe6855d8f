"""Shoes, as `mlcl prepare-shoes` writes it (DATASETS.md, Section 3.2)."""

from pathlib import Path

from mlcl_cli.data.annotations import OnDefect, Record, each, read_names, read_records, refuse
from mlcl_cli.data.layout import find_root, known_alone, make_split
from mlcl_cli.data.records import QuerySet, Split, Triplet

NAME = "shoes"
SPLITS = ("train", "val")
REMEDY = "Set roots.shoes to the folder that holds annotations/, and run mlcl prepare-shoes once"


def read(root: Path, split: str, images: Path | None = None, on_defect: OnDefect = refuse) -> Split:
    """One query set; an image's name is its path below the image folder. The gallery is the whole split, none in train.

    `images` is the image folder, by default `<root>/images`.
    Raises DataError where the prepared annotations are missing, damaged or disagree.
    """
    root = find_root(root, "shoes", ("annotations",), REMEDY)
    listing, source = (root / "annotations" / f"{kind}.{split}.json" for kind in ("split", "triplet"))
    names = read_names(listing, remedy=REMEDY)
    triplets = each(read_records(source, remedy=REMEDY, on_defect=on_defect), _triplet, on_defect)
    triplets = known_alone(source, triplets, set(names), str(listing), on_defect)
    folder = images or root / "images"
    part = QuerySet(NAME, triplets, () if split == "train" else names)
    return make_split(NAME, split, [part], lambda name: folder / name)


def _triplet(record: Record) -> Triplet:
    reference, target = record.image("ReferenceImageName"), record.image("ImageName")
    return Triplet(reference, target, (record.text("RelativeCaption"),))
