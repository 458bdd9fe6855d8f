"""CIRCO's annotations: what is read, and every defect that only this data set can have."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.records import Triplet
from mlcl_cli.errors import DataError, UsageError

CIRCO = DATASETS["circo"]
VAL = "annotations/val.json"
LISTING = "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"


def change(path: Path, edit: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def test_a_query_has_several_targets_the_first_one_first(circo: Path) -> None:
    split = CIRCO.load(circo, "val")
    (part,) = split.sets
    assert part.gallery == ("42", "7", "355099", "9")
    first, second = part.triplets
    captions = ("shows two people", "a girl with an umbrella")
    aspects = ("cardinality", "addition")
    assert first == Triplet("7", "355099", captions, 0, other_targets=("42",), aspects=aspects)
    assert first.targets() == ("355099", "42")
    assert second == Triplet("42", "9", ("is empty", "a plate"), 1)
    assert [triplet.query_id for triplet in part.triplets] == ["0", "1"]
    assert split.paths["42"] == circo / "COCO2017_unlabeled/unlabeled2017/000000000042.jpg"


def test_the_first_target_is_the_annotated_one_wherever_it_is_listed(circo: Path) -> None:
    change(circo / VAL, lambda records: records[0].update(gt_img_ids=[42, 355099, 9]))
    assert CIRCO.load(circo, "val").triplets[0].targets() == ("355099", "42", "9")


def test_the_test_split_has_no_target_and_the_same_gallery(circo: Path) -> None:
    split = CIRCO.load(circo, "test")
    assert {triplet.targets() for triplet in split.triplets} == {()}
    assert split.sets[0].gallery == CIRCO.load(circo, "val").sets[0].gallery


@pytest.mark.parametrize(
    ("captions", "text"),
    [
        ("auto", "shows two people"),
        ("relative", "shows two people"),
        ("relative+concept", "find a girl with an umbrella but shows two people"),
    ],
)
def test_the_protocol_declares_whether_the_concept_is_in_the_text(circo: Path, captions: str, text: str) -> None:
    split = CIRCO.load(circo, "val", CIRCO.protocol(captions=captions))
    assert split.triplets[0].texts == (text,)


def test_there_is_no_training_split(circo: Path) -> None:
    with pytest.raises(UsageError, match=r"circo has no training split\. Train on another data set"):
        CIRCO.load(circo, "train")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda records: records[1].update(id=0), r"record 2: id 0 is already used by .*val\.json, record 1"),
        (lambda records: records[1].update(gt_img_ids=[42]), "record 2: target_img_id 9 is not among gt_img_ids"),
        (lambda records: records[1].update(gt_img_ids=[]), "record 2: target_img_id 9 is not among gt_img_ids"),
        (lambda records: records[0]["gt_img_ids"].append(42), "record 1: gt_img_ids repeats 42"),
        (lambda records: records[0]["gt_img_ids"].append("9"), "field gt_img_ids.*: expected an integer, got a string"),
        (lambda records: records[0]["gt_img_ids"].append(5), r"1 image is not in .*2017\.json: '5' \(record 1\)"),
        (lambda records: records[1].update(reference_img_id=5), r"1 image is not in .*2017\.json: '5' \(record 2\)"),
        (lambda records: records[1].update(semantic_aspects=[1]), "expected a string, got an integer"),
    ],
)
def test_a_damaged_record_is_named(circo: Path, edit: Callable[[Any], object], message: str) -> None:
    change(circo / VAL, edit)
    with pytest.raises(DataError, match=message):
        CIRCO.load(circo, "val")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda listing: listing["images"].append({"id": 7, "file_name": "8.jpg"}), "5: image id 7 is listed twice"),
        (lambda listing: listing["images"][1].update(id="7"), "record 2, field id: expected an integer, got a string"),
        (lambda listing: listing["images"][1].pop("file_name"), "record 2: field file_name is missing"),
        (lambda listing: listing.update(images=[]), "contains no records"),
        (lambda listing: listing.update(images=7), "field images: expected a list, got an integer"),
        (lambda listing: listing.pop("images"), r"2017\.json: field images is missing"),
    ],
)
def test_a_damaged_listing_of_images_is_named(circo: Path, edit: Callable[[Any], object], message: str) -> None:
    change(circo / LISTING, edit)
    with pytest.raises(DataError, match=message):
        CIRCO.load(circo, "val")
