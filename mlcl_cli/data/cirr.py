"""CIRR, release rc2 (DATASETS.md, Section 4)."""

from pathlib import Path

from mlcl_cli.data.annotations import MEND, OnDefect, Record, each, read_name_paths, read_records, refuse
from mlcl_cli.data.layout import find_root, is_folder, known_alone, make_split
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.errors import DataError

NAME = "cirr"
IMAGE_FOLDERS = {"train": "train", "val": "dev", "test1": "test1"}
SPLITS = tuple(IMAGE_FOLDERS)
REMEDY = "Set roots.cirr to the folder that holds cirr/captions/ and cirr/image_splits/"


def read(root: Path, split: str, images: Path | None = None, on_defect: OnDefect = refuse) -> Split:
    """One query set; the gallery is the whole split, none in train.

    `images` is the folder that the split file's paths start from, by default the root or its img_raw/.
    Raises DataError where the annotations are missing, damaged or disagree.
    """
    root = find_root(root, "cirr_dataset", ("cirr/captions", "captions"), REMEDY)
    source = _annotations(root, "captions") / f"cap.rc2.{split}.json"
    listing = _annotations(root, "image_splits") / f"split.rc2.{split}.json"
    paths = read_name_paths(listing, remedy=REMEDY)
    records = read_records(source, remedy=REMEDY, on_defect=on_defect)
    first: dict[int, str] = {}
    triplets = each(records, lambda record: _triplet(record, split, first), on_defect)
    triplets = known_alone(source, triplets, paths, str(listing), on_defect)
    folder = images or _image_root(root, split)
    part = QuerySet(NAME, triplets, () if split == "train" else tuple(paths))
    return make_split(NAME, split, [part], lambda name: folder / paths[name])


def _triplet(record: Record, split: str, first: dict[int, str]) -> Triplet:
    """The triplet of `record`; `first` remembers where each pair was."""
    target = None if split == "test1" else record.image("target_hard")
    members = record.inner("img_set").images("members")
    if split == "val" and target not in members:
        raise DataError(f"target {target!r} is not among img_set.members", where=record.where, remedy=MEND)
    pair = record.number("pairid")
    triplet = Triplet(record.image("reference"), target, (record.text("caption"),), pair, members)
    if (other := first.setdefault(pair, record.where)) != record.where:
        raise DataError(f"pairid {pair} is taken already by {other}", where=record.where, remedy=MEND)
    return triplet


def _annotations(root: Path, kind: str) -> Path:
    inner = root / "cirr" / kind
    return inner if is_folder(inner) else root / kind


def _image_root(root: Path, split: str) -> Path:
    places = (root, root / "img_raw", root / "cirr", root / "cirr" / "img_raw")
    return next((place for place in places if is_folder(place / IMAGE_FOLDERS[split])), root)
