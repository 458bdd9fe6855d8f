"""CIRR, release rc2 (DATASETS.md, Section 4)."""

from pathlib import Path

from mlcl_cli.data.annotations import FIX_FILE, ImageName, OnDefect, Record, Text, read_name_paths, read_records
from mlcl_cli.data.definition import AnswerFile, DataSet, Folders, Published, Submission
from mlcl_cli.data.layout import find_root, is_folder, keep_listed, make_split
from mlcl_cli.data.protocols import CIRR_VAL
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.errors import DataError

NAME = "cirr"
IMAGE_FOLDERS = {"train": "train", "val": "dev", "test1": "test1"}
REMEDY = "Set roots.cirr to the folder that contains cirr/captions/ and cirr/image_splits/"


class _ImageSet(Record):
    members: list[ImageName]


class _Query(Record):
    pairid: int
    reference: ImageName
    caption: Text
    img_set: _ImageSet


class _Labeled(_Query):
    target_hard: ImageName


def read(root: Path, split: str, _folders: Folders, on_defect: OnDefect) -> Split:
    """One query set; the gallery is the whole split, empty in train.

    The split file's paths start from the root or its img_raw/.
    Raises DataError if the annotations are missing, damaged or contradictory.
    """
    root = find_root(root, "cirr_dataset", ("cirr/captions", "captions"), REMEDY)
    source = _annotations(root, "captions") / f"cap.rc2.{split}.json"
    listing = _annotations(root, "image_splits") / f"split.rc2.{split}.json"
    paths = read_name_paths(listing, REMEDY)
    first: dict[int, str] = {}

    def convert(record: _Query, where: str) -> Triplet:
        target = record.target_hard if isinstance(record, _Labeled) else None
        members = tuple(dict.fromkeys(record.img_set.members))
        if split == "val" and target not in members:
            raise DataError(f"target {target!r} is not among img_set.members", where=where, remedy=FIX_FILE)
        if (other := first.setdefault(record.pairid, where)) != where:
            raise DataError(f"pairid {record.pairid} is already used by {other}", where=where, remedy=FIX_FILE)
        return Triplet(record.reference, target, (record.caption,), record.pairid, members)

    model = _Query if split == "test1" else _Labeled
    triplets = read_records(source, model, convert, remedy=REMEDY, on_defect=on_defect)
    triplets = keep_listed(source, triplets, Triplet.images, paths, str(listing), on_defect)
    places = (root, root / "img_raw", root / "cirr", root / "cirr" / "img_raw")
    images = next((place for place in places if is_folder(place / IMAGE_FOLDERS[split])), root)
    part = QuerySet(NAME, triplets, () if split == "train" else tuple(paths))
    return make_split(NAME, split, [part], lambda name: (images / paths[name],))


def _annotations(root: Path, kind: str) -> Path:
    inner = root / "cirr" / kind
    return inner if is_folder(inner) else root / kind


CIRR = DataSet(
    name=NAME,
    root="data/cirr_dataset",
    read=read,
    splits=tuple(IMAGE_FOLDERS),
    protocols=(CIRR_VAL,),
    published={"train": Published(28_225), "val": Published(4_181, 2_297), "test1": Published(4_148, 2_315)},
    submission=Submission(
        command="submit-cirr",
        help="Write the two JSON files that CIRR's test server takes.",
        split="test1",
        files=tuple(
            AnswerFile(
                name=f"{metric}_submission",
                title=f"{metric} submission",
                length=length,
                head={"version": "rc2", "metric": metric},
                among_members=among_members,
            )
            for metric, length, among_members in (("recall", 50, False), ("recall_subset", 3, True))
        ),
        query="pair",
        max_bytes=5_000_000,
    ),
)
