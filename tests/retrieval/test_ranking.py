"""Ranks, best rows and recalls: golden figures, and a naive oracle beside the fast path."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from mlcl_cli.errors import DataError
from mlcl_cli.retrieval import ranking
from mlcl_cli.retrieval.ranking import PAD_INDEX, UNRANKED, Ranks, rank_targets, top_k

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


def recalls(ranks: Ranks, at: Sequence[int], subset_at: Sequence[int] = ()) -> dict[str, float]:
    return {key: 100 * float(hits.mean()) for key, hits in ranks.hits(at, subset_at).items()}


def index_triplets(names: list[str], wanted: list[str]) -> Tensor:
    return torch.tensor([names.index(name) for name in wanted])


@pytest.mark.parametrize("dataset", CASES)
@pytest.mark.parametrize("max_scores", [1, 1000, 10**8])
def test_recalls_equal_the_golden_ones(golden: Path, dataset: str, max_scores: int) -> None:
    at, exclude, subset_at = CASES[dataset]
    case, queries, gallery = golden_case(golden, dataset)
    names = case["index_names"]
    references = index_triplets(names, case["reference_names"])
    members = None
    if subset_at:
        distinct = [list(dict.fromkeys(group)) for group in case["groups"]]
        members = torch.full((len(distinct), 6), PAD_INDEX)
        for row, group in enumerate(distinct):
            members[row, : len(group)] = index_triplets(names, group)
    ranks = rank_targets(
        queries,
        gallery,
        index_triplets(names, case["target_names"]),
        excluded=references if exclude else None,
        members=members,
        max_scores=max_scores,
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


def naive_order(scores: list[float], excluded: int, allowed: list[int]) -> list[int]:
    return sorted((row for row in allowed if row != excluded), key=lambda row: (-scores[row], row))


def naive_rank(scores: list[float], target: int, excluded: int, allowed: list[int]) -> int:
    order = naive_order(scores, excluded, allowed)
    return order.index(target) + 1 if target in order else UNRANKED


@dataclass(frozen=True)
class Case:
    """Queries with small whole numbers as features, which make products exact and ties plentiful."""

    gallery: Tensor
    queries: Tensor
    targets: Tensor
    excluded: Tensor
    members: Tensor

    def scores(self, query: int) -> list[float]:
        scores: list[float] = (self.queries[query] @ self.gallery.T).tolist()
        return scores

    def member_rows(self, query: int) -> list[int]:
        return [row for row in self.members[query].tolist() if row != PAD_INDEX]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size, count, dim = (draw(st.integers(low, high)) for low, high in ((1, 12), (0, 8), (1, 3)))

    def rows(low: int) -> Tensor:
        return torch.tensor(
            draw(st.lists(st.integers(low, size - 1), min_size=count, max_size=count)), dtype=torch.int64
        )

    def features(count: int) -> Tensor:
        vector = st.lists(st.integers(-2, 2), min_size=dim, max_size=dim)
        values = draw(st.lists(vector, min_size=count, max_size=count))
        return torch.tensor(values, dtype=torch.float32).reshape(count, dim)

    sets = draw(st.lists(st.lists(st.integers(0, size - 1), max_size=4, unique=True), min_size=count, max_size=count))
    members = torch.full((count, 4), PAD_INDEX)
    for number, group in enumerate(sets):
        members[number, : len(group)] = torch.tensor(group, dtype=torch.int64)
    return Case(features(size), features(count), rows(0), rows(PAD_INDEX), members)


@settings(max_examples=150, deadline=None)
@given(case=cases(), max_scores=st.integers(1, 100))
def test_ranks_equal_a_naive_sort(case: Case, max_scores: int) -> None:
    ranks = rank_targets(
        case.queries,
        case.gallery,
        case.targets,
        excluded=case.excluded,
        members=case.members,
        max_scores=max_scores,
    )
    assert ranks.subset is not None
    for query in range(len(case.queries)):
        scores, target, hidden = case.scores(query), int(case.targets[query]), int(case.excluded[query])
        assert ranks.gallery[query] == naive_rank(scores, target, hidden, list(range(len(case.gallery))))
        assert ranks.subset[query] == naive_rank(scores, target, hidden, case.member_rows(query))


@settings(max_examples=150, deadline=None)
@given(case=cases(), k=st.integers(1, 14), max_scores=st.integers(1, 100), data=st.data())
def test_top_k_equals_a_naive_sort(case: Case, k: int, max_scores: int, data: st.DataObject) -> None:
    count, size = len(case.queries), len(case.gallery)
    selected = data.draw(st.none() | st.sets(st.integers(0, count - 1)).map(sorted)) if count else None
    for members in (None, case.members):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranking, "MAX_SCORES", max_scores)
            patch.setattr(ranking, "MAX_SORTED", max_scores)
            top = top_k(
                case.queries,
                case.gallery,
                k,
                selected=None if selected is None else torch.tensor(selected, dtype=torch.int64),
                excluded=case.excluded,
                members=members,
            )
        numbers = range(count) if selected is None else selected
        width = min(k, size if members is None else members.shape[1])
        assert top.rows.shape == top.scores.shape == (len(numbers), width)
        for number, rows, scores in zip(numbers, top.rows.tolist(), top.scores.tolist(), strict=True):
            allowed = list(range(size)) if members is None else case.member_rows(number)
            own = case.scores(number)
            expected = naive_order(own, int(case.excluded[number]), allowed)[:k]
            assert rows == expected + [PAD_INDEX] * (width - len(expected))
            assert scores == [own[row] for row in expected] + [-torch.inf] * (width - len(expected))


@pytest.mark.parametrize("size", [300, 20_000])
def test_place_in_top_k_is_the_rank(size: int) -> None:
    """In fp32, with near ties: both read the scores of the same products, whichever queries are selected."""
    generator = torch.Generator().manual_seed(2)
    gallery = normalize(torch.randn(size // 2, 64, generator=generator).repeat(2, 1), dim=-1)
    queries = normalize(torch.randn(300, 64, generator=generator), dim=-1)
    targets = top_k(queries, gallery, 20).rows[torch.arange(300), torch.arange(300) % 20]
    members = torch.stack([torch.randperm(size, generator=generator)[:6] for _ in range(300)])
    members[:, 0] = targets
    excluded = torch.randint(0, size, (300,), generator=generator)
    excluded[excluded == targets] = PAD_INDEX
    ranks = rank_targets(queries, gallery, targets, excluded=excluded, members=members)
    selected = torch.arange(0, 300, 7)
    for kind, expected in ((None, ranks.gallery), (members, ranks.subset)):
        assert expected is not None
        top = top_k(queries, gallery, 20, selected=selected, excluded=excluded, members=kind)
        for number, rows in zip(selected.tolist(), top.rows.tolist(), strict=True):
            assert rows.index(int(targets[number])) + 1 == expected[number]


def test_top_k_is_padded_where_few_rows_compete() -> None:
    gallery = torch.eye(4)
    members = torch.tensor([[2, PAD_INDEX, 0], [PAD_INDEX, PAD_INDEX, PAD_INDEX]])
    top = top_k(gallery[:2], gallery, 5, excluded=torch.tensor([0, PAD_INDEX]), members=members)
    assert top.rows.tolist() == [[2, PAD_INDEX, PAD_INDEX], [PAD_INDEX] * 3]
    assert top.scores[0].tolist() == [0, -torch.inf, -torch.inf]


def test_equal_images_tie_in_gallery_order_for_any_chunk() -> None:
    generator = torch.Generator().manual_seed(0)
    half = normalize(torch.randn(500, 64, generator=generator), dim=-1)
    gallery = torch.cat([half, half])
    queries = normalize(torch.randn(40, 64, generator=generator), dim=-1)
    targets = torch.randint(0, 500, (40,), generator=generator)
    first = rank_targets(queries, gallery, targets).gallery
    second = rank_targets(queries, gallery, targets + 500, max_scores=7000).gallery
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
def test_features_that_are_not_finite_are_refused(which: str, value: float) -> None:
    features = {"queries": torch.ones(3, 2), "gallery": torch.ones(4, 2)}
    features[which][1, 0] = value
    with pytest.raises(DataError, match="not finite"):
        rank_targets(features["queries"], features["gallery"], torch.zeros(3, dtype=torch.int64))
    with pytest.raises(DataError, match="not finite"):
        top_k(features["queries"], features["gallery"], 2)
