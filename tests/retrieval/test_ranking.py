"""Ranks, recalls and submissions: golden figures, and a naive oracle beside the fast path."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from mlcl_cli.data.records import Triplet
from mlcl_cli.errors import DataError
from mlcl_cli.retrieval.metrics import recalls
from mlcl_cli.retrieval.ranking import PAD_INDEX, UNRANKED, best_rows, rank_targets
from mlcl_cli.retrieval.submission import check, make_submissions

CASES = {
    "fashioniq": ((10, 50), False, ()),
    "shoes": ((1, 10, 50), True, ()),
    "cirr": ((1, 5, 10, 50), True, (1, 2, 3)),
}


def golden_case(folder: Path, dataset: str) -> tuple[dict, Tensor, Tensor]:  # type: ignore[type-arg]
    case = json.loads((folder / f"metrics_{dataset}.json").read_text())
    arrays = np.load(folder / f"metrics_{dataset}.npz")
    gallery = normalize(torch.from_numpy(arrays["gallery"]), dim=-1)
    return case, torch.from_numpy(arrays["queries"]), gallery


def rows_of(names: list[str], wanted: list[str]) -> Tensor:
    return torch.tensor([names.index(name) for name in wanted])


@pytest.mark.parametrize("dataset", CASES)
@pytest.mark.parametrize("most_scores", [1, 1000, 10**8])
def test_golden_recalls(golden: Path, dataset: str, most_scores: int) -> None:
    at, exclude, subset_at = CASES[dataset]
    case, queries, gallery = golden_case(golden, dataset)
    names = case["index_names"]
    references = rows_of(names, case["reference_names"])
    members = None
    if subset_at:
        distinct = [list(dict.fromkeys(group)) for group in case["groups"]]
        members = torch.full((len(distinct), 6), PAD_INDEX)
        for row, group in enumerate(distinct):
            members[row, : len(group)] = rows_of(names, group)
    ranks = rank_targets(
        queries,
        gallery,
        rows_of(names, case["target_names"]),
        excluded=references if exclude else None,
        members=members,
        most_scores=most_scores,
    )
    figures = recalls(ranks, at, subset_at)
    expected = {
        key.replace("group_recall_at", "recall_subset@").replace("recall_at", "recall@"): value
        for key, value in case["expected"].items()
        if "recall_at" in key
    }
    assert figures.keys() == expected.keys()
    for key, value in expected.items():
        assert figures[key] == pytest.approx(value, abs=1e-4)


def test_golden_submission(golden: Path) -> None:
    case, queries, gallery = golden_case(golden, "cirr")
    triplets = [
        Triplet(reference, None, ("",), pair, tuple(dict.fromkeys(group)))
        for reference, pair, group in zip(
            case["reference_names"], case["expected"]["pair_ids"], case["groups"], strict=True
        )
    ]
    submissions = make_submissions(triplets, case["index_names"], queries, gallery)
    assert submissions["recall"] == case["expected"]["submission_recall"]
    assert submissions["recall_subset"] == case["expected"]["submission_recall_subset"]


def naive_rank(scores: list[float], target: int, excluded: int, allowed: list[int]) -> int:
    order = sorted((row for row in allowed if row != excluded), key=lambda row: (-scores[row], row))
    return order.index(target) + 1 if target in order else UNRANKED


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_ranks_equal_a_naive_sort(data: st.DataObject) -> None:
    """Small whole numbers as features make products exact and ties plentiful."""
    size, count, dim = (data.draw(st.integers(low, high)) for low, high in ((1, 12), (0, 8), (1, 3)))
    numbers = st.integers(-2, 2)
    vector = st.lists(numbers, min_size=dim, max_size=dim)
    gallery = torch.tensor(data.draw(st.lists(vector, min_size=size, max_size=size)), dtype=torch.float32)
    queries = torch.tensor(data.draw(st.lists(vector, min_size=count, max_size=count)), dtype=torch.float32)
    queries = queries.reshape(count, dim)
    row, maybe = st.integers(0, size - 1), st.integers(PAD_INDEX, size - 1)
    targets = torch.tensor(data.draw(st.lists(row, min_size=count, max_size=count)), dtype=torch.int64)
    excluded = torch.tensor(data.draw(st.lists(maybe, min_size=count, max_size=count)), dtype=torch.int64)
    sets = data.draw(st.lists(st.sets(row, max_size=4), min_size=count, max_size=count))
    members = torch.full((count, 4), PAD_INDEX)
    for number, group in enumerate(sets):
        members[number, : len(group)] = torch.tensor(sorted(group), dtype=torch.int64)
    memory = data.draw(st.integers(1, 100))
    ranks = rank_targets(queries, gallery, targets, excluded=excluded, members=members, most_scores=memory)
    assert ranks.subset is not None
    for number in range(count):
        scores = (queries[number] @ gallery.T).tolist()
        target, hidden = int(targets[number]), int(excluded[number])
        assert ranks.gallery[number] == naive_rank(scores, target, hidden, list(range(size)))
        assert ranks.subset[number] == naive_rank(scores, target, hidden, sorted(sets[number]))


def test_equal_pictures_tie_in_gallery_order_for_any_chunk() -> None:
    generator = torch.Generator().manual_seed(0)
    half = normalize(torch.randn(500, 64, generator=generator), dim=-1)
    gallery = torch.cat([half, half])
    queries = normalize(torch.randn(40, 64, generator=generator), dim=-1)
    targets = torch.randint(0, 500, (40,), generator=generator)
    first = rank_targets(queries, gallery, targets).gallery
    second = rank_targets(queries, gallery, targets + 500, most_scores=7000).gallery
    assert torch.equal(second, first + 1)


def test_recalls_equal_torchmetrics() -> None:
    from torchmetrics.retrieval import RetrievalRecall

    generator = torch.Generator().manual_seed(1)
    gallery = normalize(torch.randn(90, 16, generator=generator), dim=-1)
    queries = normalize(torch.randn(70, 16, generator=generator), dim=-1)
    targets = torch.randint(0, 90, (70,), generator=generator)
    figures = recalls(rank_targets(queries, gallery, targets), (1, 5, 10, 50))
    scores = queries @ gallery.T + 2  # torchmetrics takes no target whose score is negative
    relevant = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, targets[:, None], value=True)
    rows = torch.arange(70)[:, None].expand_as(scores)
    for k in (1, 5, 10, 50):
        oracle = RetrievalRecall(top_k=k)(scores.flatten(), relevant.flatten(), indexes=rows.flatten())
        assert figures[f"recall@{k}"] == pytest.approx(float(oracle) * 100, abs=1e-4)


@pytest.mark.parametrize("which", ["queries", "gallery"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_that_are_not_finite_are_refused(which: str, value: float) -> None:
    features = {"queries": torch.ones(3, 2), "gallery": torch.ones(4, 2)}
    features[which][1, 0] = value
    with pytest.raises(DataError, match="not finite"):
        rank_targets(features["queries"], features["gallery"], torch.zeros(3, dtype=torch.int64))
    with pytest.raises(DataError, match="not finite"):
        best_rows(features["queries"], features["gallery"], 2, excluded=torch.zeros(3, dtype=torch.int64))


def test_the_servers_rules() -> None:
    good = {"version": "rc2", "metric": "recall_subset", "1": ["a", "b", "c"]}
    assert check("recall_subset", good, ["1"]).endswith(b"\n")
    for wrong in (
        good | {"version": "rc1"},
        good | {"1": ["a", "b"]},
        good | {"1": ["a", "b", "b"]},
        good | {"2": ["a", "b", "c"]},
        {"version": "rc2", "metric": "recall_subset"},
    ):
        with pytest.raises(DataError):
            check("recall_subset", wrong, ["1"])


def test_a_set_too_small_for_the_server_is_an_error() -> None:
    features = torch.eye(60)
    names = [str(number) for number in range(60)]
    triplet = Triplet("0", None, ("",), 1, ("0", "1", "2"))
    with pytest.raises(DataError, match="needs 3 different images for pair 1"):
        make_submissions([triplet], names, features[:1], features)
