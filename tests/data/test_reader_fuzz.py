"""Whatever an annotation file holds, it is read or refused with a DataError."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.errors import DataError

ANNOTATIONS = {
    "fashioniq": ("captions/cap.dress.val.json", "image_splits/split.dress.val.json"),
    "shoes": ("annotations/triplet.val.json", "annotations/split.val.json"),
    "cirr": ("cirr/captions/cap.rc2.val.json", "cirr/image_splits/split.rc2.val.json"),
    "circo": ("annotations/val.json", "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"),
}
FILES = [(dataset, file) for dataset, files in ANNOTATIONS.items() for file in files]

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def mutate(data: st.DataObject, value: Any) -> Any:
    """`value` with one node somewhere inside it replaced, dropped or repeated."""
    if not isinstance(value, dict | list) or not value or data.draw(st.integers(0, 4)) == 0:
        return data.draw(VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = data.draw(st.sampled_from(keys))
    kind = data.draw(st.sampled_from(["inside", "inside", "inside", "drop", "repeat"]))
    if kind == "drop":
        del value[key]
    elif kind == "repeat" and isinstance(value, list):
        value.append(value[key])
    else:
        value[key] = mutate(data, value[key])
    return value


def split_or_data_error(dataset: str, root: Path) -> None:
    refusals = []
    for protocol in DATASETS[dataset].protocols:
        try:
            split = DATASETS[dataset].load(root, "val", protocol)
        except DataError as error:
            refusals.append(error)
            continue
        assert split.triplets
        assert set(split.images()) <= split.paths.keys()
        assert all(path.resolve().is_relative_to(root) for path in split.paths.values())
    assert all(error.where and error.remedy for error in refusals)


@pytest.mark.parametrize(("dataset", "file"), FILES)
@FUZZ
@given(data=st.data())
def test_changed_files_are_read_or_refused(
    roots: dict[str, Path], dataset: str, file: str, data: st.DataObject
) -> None:
    path = roots[dataset] / file
    intact = path.read_bytes()
    try:
        path.write_text(json.dumps(mutate(data, json.loads(intact))))
        split_or_data_error(dataset, roots[dataset])
    finally:
        path.write_bytes(intact)


@pytest.mark.parametrize(("dataset", "file"), FILES)
@FUZZ
@given(data=st.data())
def test_damaged_bytes_are_read_or_refused(
    roots: dict[str, Path], dataset: str, file: str, data: st.DataObject
) -> None:
    path = roots[dataset] / file
    intact = path.read_bytes()
    start, length = data.draw(st.integers(0, len(intact))), data.draw(st.integers(0, 9))
    try:
        path.write_bytes(intact[:start] + data.draw(st.binary(max_size=9)) + intact[start + length :])
        split_or_data_error(dataset, roots[dataset])
    finally:
        path.write_bytes(intact)
