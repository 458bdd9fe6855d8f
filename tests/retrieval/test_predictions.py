"""Ranked lists and features of any model, judged as our own: naive oracles, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcl_cli.data.protocols import CIRR_VAL, SHOES, Protocol, recall_mean
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.errors import DataError, NotFiniteError, UsageError
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.retrieval import predictions
from mlcl_cli.retrieval.evaluation import Evaluation

OWN = Protocol(
    name="own", recall_at=(1, 3), map_at=(2, 5), any_target=True, exclude_reference=True, bests=("recall_mean",),
    summary=recall_mean,
)  # fmt: skip
WITH_REFERENCE = replace(OWN, name="own-withref", exclude_reference=False)
SUBSET = replace(CIRR_VAL, recall_at=(1, 5), subset_recall_at=(1, 2), summary=lambda sets: dict(*sets.values()))


def split_of(triplets: list[Triplet], gallery: list[str]) -> Split:
    numbered = tuple(replace(triplet, query_id=f"q{number}") for number, triplet in enumerate(triplets))
    return Split("own", "val", (QuerySet("own", numbered, tuple(gallery)),), {})


@st.composite
def judged(draw: st.DrawFn) -> tuple[Split, Protocol, list[list[str]]]:
    """A split, a protocol, and a ranking of the whole gallery for each query."""
    gallery = [f"im{number}" for number in range(draw(st.integers(2, 8)))]
    protocol = draw(st.sampled_from([OWN, WITH_REFERENCE, SUBSET]))
    triplets, rankings = [], []
    for _ in range(draw(st.integers(1, 5))):
        reference, *targets = draw(st.permutations(gallery))
        targets = targets[: draw(st.integers(1, len(targets)))]
        if draw(st.booleans()):
            targets[-1] = reference  # a target that is its own reference
        members = [*dict.fromkeys([reference, targets[0], *draw(st.permutations(gallery))[:2]])]
        triplets.append(
            Triplet(reference, targets[0], ("text",), None, tuple(members), other_targets=tuple(targets[1:]))
        )
        rankings.append(draw(st.permutations(gallery)))
    return split_of(triplets, gallery), protocol, rankings


def naive_metrics(split: Split, protocol: Protocol, rankings: list[list[str]]) -> dict[str, float]:
    """The protocol's metrics from whole rankings, one query at a time, as the definitions say them."""
    sums: dict[str, list[float]] = {}
    for triplet, ranking in zip(split.triplets, rankings, strict=True):
        competing = [name for name in ranking if not (protocol.exclude_reference and name == triplet.reference)]
        targets = [triplet.target, *triplet.other_targets] if protocol.any_target else [triplet.target]
        for k in protocol.recall_at:
            sums.setdefault(f"recall@{k}", []).append(any(name in targets for name in competing[:k]))
        for k in protocol.map_at:
            hits, precision = 0, 0.0
            for position, name in enumerate(competing[:k], 1):
                if name in targets:
                    hits += 1
                    precision += hits / position
            sums.setdefault(f"map@{k}", []).append(precision / min(len(targets), k))
        for k in protocol.subset_recall_at:
            among = [name for name in competing if name in triplet.members]
            sums.setdefault(f"recall_subset@{k}", []).append(triplet.target in among[:k])
    return {key: 100 * sum(values) / len(values) for key, values in sums.items()}


@settings(deadline=None)
@given(case=judged(), data=st.data())
def test_lists_are_judged_as_the_definitions_say(case: tuple[Split, Protocol, list[list[str]]], data: Any) -> None:
    split, protocol, rankings = case
    lists = {}
    for triplet, ranking in zip(split.triplets, rankings, strict=True):
        competing = [name for name in ranking if not (protocol.exclude_reference and name == triplet.reference)]
        listed = competing[: data.draw(st.integers(min(protocol.depth, len(competing)), len(competing)))]
        tail = [name for name in ranking if name not in listed and name in triplet.members]
        with_tail = [*listed, *(tail if protocol.subset_recall_at else [])]
        lists[triplet.query_id] = (
            with_tail if data.draw(st.booleans()) else _with_reference(with_tail, ranking, triplet)
        )
    ranks = predictions.rank_lists(Path("p.json"), split, protocol, lists)
    metrics = Evaluation(split, protocol).figures(ranks).metrics
    for key, value in naive_metrics(split, protocol, rankings).items():
        assert metrics[key] == pytest.approx(value), key


def _with_reference(listed: list[str], ranking: list[str], triplet: Triplet) -> list[str]:
    """A list that also has the reference, where a model ranked it: it does not count where it is removed."""
    return (
        [name for name in ranking if name in {*listed, triplet.reference}]
        if triplet.reference not in listed
        else listed
    )


@settings(deadline=None)
@given(case=judged(), seed=st.integers(0, 1000))
def test_lists_and_features_of_one_model_score_the_same(
    case: tuple[Split, Protocol, list[list[str]]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Features from a few small integers tie often; ties rank in gallery order in both."""
    split, protocol, _ = case
    folder = tmp_path_factory.mktemp("predictions")
    draw = torch.Generator().manual_seed(seed)
    (part,) = split.sets
    queries, gallery = (
        torch.randint(-1, 2, (count, 2), generator=draw).float() for count in (len(part.triplets), len(part.gallery))
    )
    evaluation = Evaluation(split, protocol)
    tables = (
        FeatureTable({name: row for row, name in enumerate(part.gallery)}, gallery),
        FeatureTable({triplet.query_id: row for row, triplet in enumerate(part.triplets)}, queries),
    )
    composed = list(evaluation.given(*tables))
    expected = evaluation.figures({part.name: composed[0].rank()}).metrics
    for suffix in (".json", ".jsonl", ".npz"):
        path = folder / f"p{suffix}"
        path.write_bytes(predictions.to_bytes(path, composed, protocol))
        if suffix == ".npz":
            ranks = predictions.rank_features(path, evaluation, predictions.read_features(path))
        else:
            ranks = predictions.rank_lists(path, split, protocol, predictions.read_lists(path))
        assert evaluation.figures(ranks).metrics == expected


def two_queries() -> Split:
    gallery = ["a", "b", "c", "d"]
    return split_of([Triplet("a", "b", ("x",)), Triplet("b", "c", ("y",))], gallery)


SMALL = replace(SHOES, recall_at=(1, 2))
VALID = {"q0": ["b", "c"], "q1": ["c", "d"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lists: lists.pop("q1"), "1 query is not answered: 'q1'"),
        (lambda lists: lists.update(q7=["a"]), "1 query is unknown: 'q7'"),
        (lambda lists: lists.update(q1=["c", "z"]), "query 'q1': 1 name not in the gallery of own: 'z'"),
        (lambda lists: lists.update(q1=["c", "d", "c"]), "query 'q1': lists 'c' twice"),
        (lambda lists: lists.update(q1=["c"]), "query 'q1': lists 1 image, but shoes needs 2"),
        (lambda lists: lists.update(q1=["c", "b"]), "query 'q1': lists 1 image, but shoes needs 2"),
    ],
)
def test_wrong_lists_are_refused(change: Callable[[Any], object], message: str) -> None:
    lists = {key: [*names] for key, names in VALID.items()}
    predictions.rank_lists(Path("p.json"), two_queries(), SMALL, lists)
    change(lists)
    with pytest.raises(DataError, match=f"^p.json.*{message}"):
        predictions.rank_lists(Path("p.json"), two_queries(), SMALL, lists)


def test_lists_for_an_image_set_must_rank_its_members() -> None:
    split = split_of([Triplet("a", "b", ("x",), None, ("a", "b", "d"))], ["a", "b", "c", "d"])
    protocol = replace(SUBSET, recall_at=(1, 2))
    predictions.rank_lists(Path("p.json"), split, protocol, {"q0": ["c", "b", "d"]})
    with pytest.raises(DataError, match="the image set's other members after the first 2, in order: 'd'"):
        predictions.rank_lists(Path("p.json"), split, protocol, {"q0": ["c", "b"]})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.json", b"[]", "expected an object such as"),
        ("p.json", b'{"q0": "a"}', "query 'q0': expected a list of image names"),
        ("p.json", b'{"q0": [[]]}', "query 'q0': expected a list of image names"),
        ("p.json", b'{"q0": []', "is not JSON"),
        ("p.json", b'{"q0": [], "q0": []}', "contains 'q0' twice"),
        ("p.json", b"\xff", "is not UTF-8 text"),
        ("p.jsonl", b'{"q0": ["a"]}\n{"q0": ["a"]}\n', "p.jsonl, line 2: query 'q0' comes twice"),
        ("none.json", None, "cannot be read .No such file"),
    ],
)
def test_damaged_lists_are_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        predictions.read_lists(tmp_path / name)


def arrays() -> dict[str, Any]:
    return {
        "query_ids": np.array(["q0", "q1"]),
        "query_features": np.eye(2, 3, dtype=np.float32),
        "image_names": np.array(["a", "b", "c", "d"]),
        "image_features": np.eye(4, 3, dtype=np.float32),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_ids": None}, "has no array query_ids; expected query_ids, query_features"),
        ({"query_ids": np.array(["q0"])}, r"expected query_ids \[N\] and query_features \[N, d\] of numbers"),
        ({"query_ids": np.array(["q0", "q0"])}, "query_ids has a name twice"),
        ({"query_features": np.array(["x", "y"])}, "of numbers, got"),
        ({"query_features": np.eye(2, 4)}, "query_features have 4 dimensions, but image_features 3"),
        ({"image_names": np.array(["a", "b", "c", "z"])}, "1 image is missing: 'd'"),
        ({"query_ids": np.array(["q0", "q2"])}, "1 query is not answered: 'q1'"),
        ({"query_features": np.full((2, 3), np.nan)}, "not finite"),
    ],
)
def test_wrong_features_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "p.npz"
    evaluation = Evaluation(two_queries(), SMALL)
    np.savez(path, **arrays())
    predictions.rank_features(path, evaluation, predictions.read_features(path))
    np.savez(path, **{name: array for name, array in (arrays() | change).items() if array is not None})
    with pytest.raises((DataError, NotFiniteError), match=message):
        predictions.rank_features(path, evaluation, predictions.read_features(path))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_a_damaged_file_of_features_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"is not a valid \.npz file"):
        predictions.read_features(tmp_path / "p.npz")


def test_pickles_in_a_file_of_features_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", **(arrays() | {"image_names": np.array(["a", None], dtype=object)}))
    with pytest.raises(DataError, match=r"is not a valid \.npz file"):
        predictions.read_features(tmp_path / "p.npz")


def test_other_formats_are_refused() -> None:
    with pytest.raises(UsageError, match=r"must end in \.json, \.jsonl or \.npz"):
        predictions.require_format(Path("p.txt"))
