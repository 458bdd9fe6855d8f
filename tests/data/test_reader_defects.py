"""Every defect of the annotation files: one clear DataError."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.errors import DataError, UsageError

ANNOTATIONS = {
    "fashioniq": ("captions/cap.dress.val.json", "image_splits/split.dress.val.json"),
    "shoes": ("annotations/triplet.val.json", "annotations/split.val.json"),
    "cirr": ("cirr/captions/cap.rc2.val.json", "cirr/image_splits/split.rc2.val.json"),
    "circo": ("annotations/val.json", "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"),
}
FILES = [(dataset, file) for dataset, files in ANNOTATIONS.items() for file in files]
ESCAPING = ["../x", "a/../../x", "..", "/etc/passwd", "a\\b", "..\\x", "C:x", "c:/x", "a\0b", "", ".", "./"]


def change(path: Path, edit: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_wrong_root_is_refused(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"nowhere: does not exist\. Set roots\.{dataset} to"):
        DATASETS[dataset].load(tmp_path / "nowhere", "val")
    with pytest.raises(DataError, match=r"expected .*/ or .*/, found nothing"):
        DATASETS[dataset].load(tmp_path, "val")
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DataError, match=r"expected .*/ or .*/, found holiday\. Set"):
        DATASETS[dataset].load(tmp_path, "val")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be listed"):
        DATASETS[dataset].load(tmp_path / "file", "val")


@pytest.mark.parametrize(
    ("dataset", "split"),
    [("shoes", "test"), ("cirr", "test"), ("fashioniq", "dev"), ("circo", "test1"), ("fashion200k", "test")],
)
def test_an_unknown_split_is_refused(dataset: str, split: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no split"):
        DATASETS[dataset].load(tmp_path, split)


@pytest.mark.parametrize(("dataset", "file"), FILES)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1, column 1: is not JSON"),
        (b'[\n {"a" 1}]', r"line 2, column 7: is not JSON \(Expecting ':' delimiter\)"),
        (b"\xff\xfe", r"not UTF-8 text \(byte 0\)"),
        (b"[NaN]", "contains NaN"),
        (b'{"a": -Infinity}', "contains -Infinity"),
        (b'{"a": "x", "b": "y", "a": "z"}', "contains 'a' twice in one object"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1" + b"0" * 5000 + b"]", "Exceeds the limit"),
        (b"[]", "contains no|expected an object, got a list"),
        (b"{}", "contains no|expected a list, got an object|field images is missing"),
        (b"null", r"expected an? \w+, got null"),
        (b"7", r"expected an? \w+, got an integer"),
        (b"[true]", r"expected a string, got a boolean|expected an object, got (a list|a boolean)"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(
    roots: dict[str, Path], dataset: str, file: str, content: bytes, message: str
) -> None:
    path = roots[dataset] / file
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        DATASETS[dataset].load(roots[dataset], "val")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("dataset", "file"), FILES)
def test_a_missing_file_is_named_with_the_root_to_set(roots: dict[str, Path], dataset: str, file: str) -> None:
    path = roots[dataset] / file
    path.unlink()
    with pytest.raises(DataError, match=rf"{path.name}: does not exist\. Set roots\.{dataset}"):
        DATASETS[dataset].load(roots[dataset], "val")
    path.mkdir()
    with pytest.raises(DataError, match=rf"{path.name}: cannot be read \(Is a directory\)"):
        DATASETS[dataset].load(roots[dataset], "val")


FIELDS = [
    ("fashioniq", "candidate"),
    ("fashioniq", "target"),
    ("fashioniq", "captions"),
    ("shoes", "ImageName"),
    ("shoes", "ReferenceImageName"),
    ("shoes", "RelativeCaption"),
    ("cirr", "pairid"),
    ("cirr", "reference"),
    ("cirr", "target_hard"),
    ("cirr", "caption"),
    ("cirr", "img_set"),
    ("circo", "id"),
    ("circo", "reference_img_id"),
    ("circo", "target_img_id"),
    ("circo", "relative_caption"),
    ("circo", "shared_concept"),
    ("circo", "gt_img_ids"),
    ("circo", "semantic_aspects"),
]


@pytest.mark.parametrize(("dataset", "field"), FIELDS)
def test_a_missing_or_mistyped_field_is_named(roots: dict[str, Path], dataset: str, field: str) -> None:
    path = roots[dataset] / ANNOTATIONS[dataset][0]
    intact = path.read_text()
    for wrong in (None, 1.5, True):
        change(path, lambda records, wrong=wrong: records[1].update({field: wrong}))  # type: ignore[misc]
        with pytest.raises(DataError, match=rf"{path.name}, record 2, field {field}: expected an? .*, got "):
            DATASETS[dataset].load(roots[dataset], "val")
        path.write_text(intact)
    change(path, lambda records: records[1].pop(field))
    with pytest.raises(DataError, match=rf"{path.name}, record 2: field {field} is missing"):
        DATASETS[dataset].load(roots[dataset], "val")


@pytest.mark.parametrize("captions", [[], ["a"], ["a", "b", "c"]])
def test_fashioniq_requires_two_captions(fashioniq: Path, captions: list[str]) -> None:
    change(fashioniq / ANNOTATIONS["fashioniq"][0], lambda records: records[0].update(captions=captions))
    with pytest.raises(DataError, match=r"record 1, field captions: expected 2 captions, got \d"):
        DATASETS["fashioniq"].load(fashioniq, "val")


@pytest.mark.parametrize(("dataset", "field"), [pair for pair in FIELDS if "aption" in pair[1]])
def test_half_a_surrogate_pair_is_refused(roots: dict[str, Path], dataset: str, field: str) -> None:
    value = ["a", "\ud800"] if dataset == "fashioniq" else "\ud800"
    change(roots[dataset] / ANNOTATIONS[dataset][0], lambda records: records[0].update({field: value}))
    with pytest.raises(DataError, match=r"record 1, field .* an unpaired surrogate"):
        DATASETS[dataset].load(roots[dataset], "val")


@pytest.mark.parametrize(
    ("dataset", "field", "place"),
    [
        ("fashioniq", "candidate", "any file of"),
        ("fashioniq", "target", "any file of"),
        ("shoes", "ImageName", "split.val.json"),
        ("shoes", "ReferenceImageName", "split.val.json"),
        ("cirr", "reference", "split.rc2.val.json"),
    ],
)
def test_an_image_in_no_split_is_refused(roots: dict[str, Path], dataset: str, field: str, place: str) -> None:
    change(roots[dataset] / ANNOTATIONS[dataset][0], lambda records: records[1].update({field: "stray"}))
    with pytest.raises(DataError, match=rf"1 image is not in .*{place}.*: 'stray' \(record 2\)"):
        DATASETS[dataset].load(roots[dataset], "val")


def test_cirr_members_must_be_listed_and_hold_the_target(cirr: Path) -> None:
    path = cirr / ANNOTATIONS["cirr"][0]
    change(path, lambda records: records[1]["img_set"]["members"].extend(["x", "y"]))
    with pytest.raises(DataError, match=r"2 images are not in .*: 'x' \(record 2\), 'y' \(record 2\)"):
        DATASETS["cirr"].load(cirr, "val")
    change(path, lambda records: records[1]["img_set"].update(members=["dev-6-0-img0"]))
    with pytest.raises(DataError, match=r"record 2: target 'dev-7-0-img1' is not among img_set\.members"):
        DATASETS["cirr"].load(cirr, "val")


def test_a_fashioniq_val_target_must_be_in_its_gallery(fashioniq: Path) -> None:
    change(fashioniq / ANNOTATIONS["fashioniq"][0], lambda records: records[1].update(target="shirt-val-a"))
    with pytest.raises(
        DataError, match=r"1 image is not in the gallery, .*split\.dress\.val\.json: 'shirt-val-a' \(re"
    ):
        DATASETS["fashioniq"].load(fashioniq, "val")


def test_fashioniq_compares_with_the_split_files_that_exist(fashioniq: Path) -> None:
    for file in (fashioniq / "image_splits").glob("*.test.json"):
        file.unlink()
    assert DATASETS["fashioniq"].load(fashioniq, "val").triplets
    (fashioniq / "image_splits" / "split.toptee.train.json").unlink()
    with pytest.raises(DataError, match=r"'shared' \(record 3\)"):
        DATASETS["fashioniq"].load(fashioniq, "val")


def test_a_repeated_cirr_pair_id_is_refused(cirr: Path) -> None:
    path = cirr / ANNOTATIONS["cirr"][0]
    change(path, lambda records: records[1].update(pairid=12060))
    with pytest.raises(DataError, match=r"record 2: pairid 12060 is already used by .*, record 1"):
        DATASETS["cirr"].load(cirr, "val")


@pytest.mark.parametrize("name", ESCAPING)
@pytest.mark.parametrize(
    ("dataset", "file", "edit"),
    [
        ("fashioniq", 0, lambda records, name: records[0].update(candidate=name)),
        ("fashioniq", 0, lambda records, name: records[0].update(target=name)),
        ("fashioniq", 1, lambda names, name: names.append(name)),
        ("shoes", 0, lambda records, name: records[0].update(ImageName=name)),
        ("shoes", 0, lambda records, name: records[0].update(ReferenceImageName=name)),
        ("shoes", 1, lambda names, name: names.append(name)),
        ("cirr", 0, lambda records, name: records[0].update(reference=name)),
        ("cirr", 0, lambda records, name: records[0].update(target_hard=name)),
        ("cirr", 0, lambda records, name: records[0]["img_set"]["members"].append(name)),
        ("cirr", 1, lambda paths, name: paths.update({"new": name})),
        ("cirr", 1, lambda paths, name: paths.update({name: "dev/x.png"})),
        ("circo", 1, lambda listing, name: listing["images"][0].update(file_name=name)),
    ],
)
def test_names_that_leave_the_root_are_refused(
    roots: dict[str, Path], dataset: str, file: int, edit: Callable[[Any, str], object], name: str
) -> None:
    change(roots[dataset] / ANNOTATIONS[dataset][file], lambda value: edit(value, name))
    with pytest.raises(DataError, match="is not a valid image name: it is empty, is absolute, or leaves"):
        DATASETS[dataset].load(roots[dataset], "val")
