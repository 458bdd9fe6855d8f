"""CIRCO: a benchmark with several targets a query, and no training split (DATASETS.md, Section 5)."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mlcl_cli.data.annotations import FIX_FILE, ImageName, OnDefect, Record, Text, read_records
from mlcl_cli.data.definition import AnswerFile, DataSet, Folders, Published, Submission
from mlcl_cli.data.layout import find_root, keep_listed, make_split
from mlcl_cli.data.protocols import CaptionRule, Metrics, Protocol
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.errors import DataError, some

NAME = "circo"
COCO = "COCO2017_unlabeled"
CUTOFFS = (5, 10, 25, 50)
REMEDY = "Set roots.circo to the folder that contains annotations/ and COCO2017_unlabeled/"


class _Image(Record):
    id: int
    file_name: ImageName


class _Query(Record):
    id: int
    reference_img_id: int
    relative_caption: Text
    shared_concept: Text


class _Labeled(_Query):
    target_img_id: int
    gt_img_ids: list[int]
    semantic_aspects: list[Text]


def read(root: Path, split: str, _folders: Folders, on_defect: OnDefect) -> Split:
    """One query set, whose gallery is all of COCO's unlabeled images; an image's name is its id as text.

    A triplet's captions are the relative caption and the shared concept.
    Raises DataError if the annotations are missing, damaged or contradictory.
    """
    root = find_root(root, "CIRCO", ("annotations",), REMEDY)
    listing = root / COCO / "annotations" / "image_info_unlabeled2017.json"
    source = root / "annotations" / f"{split}.json"
    first: dict[int, str] = {}

    def convert(record: _Query, where: str) -> Triplet:
        if (other := first.setdefault(record.id, where)) != where:
            raise DataError(f"id {record.id} is already used by {other}", where=where, remedy=FIX_FILE)
        captions = (record.relative_caption, record.shared_concept)
        query = Triplet(str(record.reference_img_id), None, captions, record.id)
        return _with_targets(query, record, where) if isinstance(record, _Labeled) else query

    model = _Query if split == "test" else _Labeled
    triplets = read_records(source, model, convert, remedy=REMEDY, on_defect=on_defect)
    files = _image_files(listing, on_defect)
    triplets = keep_listed(source, triplets, Triplet.images, files, str(listing), on_defect)
    images = root / COCO / "unlabeled2017"
    return make_split(NAME, split, [QuerySet(NAME, triplets, tuple(files))], lambda name: (images / files[name],))


def _with_targets(query: Triplet, record: _Labeled, where: str) -> Triplet:
    target, targets = record.target_img_id, record.gt_img_ids
    if repeated := [number for number, count in Counter(targets).items() if count > 1]:
        raise DataError(f"gt_img_ids repeats {some(repeated)}", where=where, remedy=FIX_FILE)
    if target not in targets:
        raise DataError(f"target_img_id {target} is not among gt_img_ids", where=where, remedy=FIX_FILE)
    others = tuple(str(number) for number in targets if number != target)
    aspects = tuple(dict.fromkeys(record.semantic_aspects))
    return replace(query, target=str(target), other_targets=others, aspects=aspects)


def _image_files(listing: Path, on_defect: OnDefect) -> dict[str, str]:
    """The file of every image by name, in the listing's order."""
    files: dict[str, str] = {}

    def add(record: _Image, where: str) -> None:
        if (name := str(record.id)) in files:
            raise DataError(f"image id {name} is listed twice", where=where, remedy=FIX_FILE)
        files[name] = record.file_name

    read_records(listing, _Image, add, key="images", remedy=REMEDY, on_defect=on_defect)
    return files


def _metrics_alone(metrics: Mapping[str, Metrics]) -> dict[str, float]:
    """The metrics of the one query set, without a mean: the benchmark publishes none."""
    (values,) = metrics.values()
    return {**values}


def relative_alone(captions: tuple[str, ...]) -> tuple[str, ...]:
    """The relative caption without the shared concept."""
    return captions[:1]


def concept_and_relative(captions: tuple[str, ...]) -> tuple[str, ...]:
    """The shared concept and the relative caption, worded as in MagicLens (METHOD.md, Section 8.5)."""
    relative, concept = captions
    return (f"find {concept} but {relative}",)


RELATIVE = CaptionRule(
    "relative", "The query text is the relative caption; the shared concept is not used.", relative_alone
)
WITH_CONCEPT = CaptionRule(
    "relative+concept",
    'The query text is "find {shared concept} but {relative caption}", as in MagicLens.',
    concept_and_relative,
)
CIRCO_VAL = Protocol(
    name="circo-val",
    recall_at=CUTOFFS,
    map_at=CUTOFFS,
    aspect_map_at=10,
    exclude_reference=False,
    bests=("map@5",),
    summary=_metrics_alone,
    gallery_words="every unlabeled image of COCO 2017, in the order of image_info_unlabeled2017.json",
    target_words="A query's targets are all of its gt_img_ids, the first of which is target_img_id.",
    captions=RELATIVE,
    systems="SEARLE, CIReVL",
)
CIRCO_VAL_CONCEPT = replace(CIRCO_VAL, name="circo-val-concept", captions=WITH_CONCEPT, systems="MagicLens")
CIRCO = DataSet(
    name=NAME,
    root="data/circo",
    read=read,
    splits=("val", "test"),
    protocols=(CIRCO_VAL, CIRCO_VAL_CONCEPT),
    published={"val": Published(220, 123_403), "test": Published(800, 123_403)},
    submission=Submission(
        command="submit-circo",
        help="Write the JSON file that CIRCO's test server takes.",
        split="test",
        files=(AnswerFile("circo_submission", "CIRCO submission", length=50),),
        integers=True,
        gapless=True,
    ),
)
