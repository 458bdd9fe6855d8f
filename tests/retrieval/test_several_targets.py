"""Several targets a query, against a naive sort and CIRCO's published definition of mAP, written again in numpy."""

from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.retrieval import ranking
from mlcl_cli.retrieval.evaluation import Evaluation, text_query
from mlcl_cli.retrieval.ranking import PAD_INDEX, UNRANKED, rank_targets

ASPECTS = ("addition", "negation", "viewpoint")
CIRCO_VAL = DATASETS["circo"].protocol()
Case = tuple[Tensor, Tensor, list[list[int]], list[int]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Gallery and queries of small whole numbers, so that ties are plentiful; one to four targets; excluded rows."""
    size, count, dim = (draw(st.integers(low, high)) for low, high in ((1, 12), (1, 7), (1, 3)))

    def features(rows: int) -> Tensor:
        vector = st.lists(st.integers(-2, 2), min_size=dim, max_size=dim)
        return torch.tensor(draw(st.lists(vector, min_size=rows, max_size=rows)), dtype=torch.float32)

    group = st.lists(st.integers(0, size - 1), min_size=1, max_size=4, unique=True)
    targets = draw(st.lists(group, min_size=count, max_size=count))
    hidden = draw(st.lists(st.integers(PAD_INDEX, size - 1), min_size=count, max_size=count))
    return features(size), features(count), targets, hidden


def padded(groups: list[list[int]]) -> Tensor:
    width = max(map(len, groups))
    return torch.tensor([[*group, *[PAD_INDEX] * (width - len(group))] for group in groups])


def ranked(gallery: Tensor, query: Tensor, hidden: int) -> list[int]:
    """All rows but the hidden one, best first, equal scores in gallery order."""
    scores = (gallery @ query).tolist()
    return sorted((row for row in range(len(gallery)) if row != hidden), key=lambda row: (-scores[row], row))


def naive_precision(order: list[int], targets: list[int], k: int) -> float:
    """The definition: precision at each rank that holds a target, over the smaller of K and the number of targets."""
    total = 0.0
    for rank in range(1, min(k, len(order)) + 1):
        if order[rank - 1] in targets:
            total += sum(row in targets for row in order[:rank]) / rank
    return total / min(len(targets), k)


@given(case=cases(), k=st.integers(1, 14), compared=st.sampled_from([1, 20, 2**20]), max_scores=st.integers(1, 200))
def test_ranks_recalls_and_precisions_equal_a_naive_sort(case: Case, k: int, compared: int, max_scores: int) -> None:
    gallery, queries, groups, hidden = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "MAX_COMPARED", {"cpu": compared})
        ranks = rank_targets(queries, gallery, padded(groups), excluded=torch.tensor(hidden), max_scores=max_scores)
    orders = [ranked(gallery, query, own) for query, own in zip(queries, hidden, strict=True)]
    for order, group, row in zip(orders, groups, ranks.targets.tolist(), strict=True):
        expected = [order.index(target) + 1 if target in order else UNRANKED for target in group]
        assert row == expected + [PAD_INDEX] * (len(row) - len(group))
    precisions = [naive_precision(order, group, k) for order, group in zip(orders, groups, strict=True)]
    assert ranks.average_precisions(k).tolist() == pytest.approx(precisions)
    for any_target in (True, False):
        counted = [group if any_target else group[:1] for group in groups]
        hits = [any(target in order[:k] for target in group) for order, group in zip(orders, counted, strict=True)]
        recall = 100 * float(ranks.hits((k,), any_target=any_target)[f"recall@{k}"].mean())
        assert recall == pytest.approx(100 * sum(hits) / len(hits))


def circo_metrics(
    predictions: list[list[int]], truths: list[list[int]], targets: list[int], aspects: list[list[str]]
) -> dict[str, float]:
    """CIRCO's metrics as its server defines them, over lists of distinct ids; in percent."""
    metrics: dict[str, float] = {}
    found = [np.isin(np.array(own), truth) for own, truth in zip(predictions, truths, strict=True)]
    at_hits = [np.cumsum(hits) * hits / np.arange(1, len(hits) + 1) for hits in found]

    def precisions(k: int) -> list[float]:
        return [float(own[:k].sum()) / min(len(truth), k) for own, truth in zip(at_hits, truths, strict=True)]

    for k in (5, 10, 25, 50):
        hits = [target in own[:k] for own, target in zip(predictions, targets, strict=True)]
        metrics[f"recall@{k}"] = 100 * fmean(hits)
        metrics[f"map@{k}"] = 100 * fmean(precisions(k))
    for aspect in ASPECTS:
        own_precisions = [value for value, names in zip(precisions(10), aspects, strict=True) if aspect in names]
        metrics[f"map@10/{aspect}"] = 100 * fmean(own_precisions)
    return metrics


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [True, False])
def test_circo_metrics_equal_their_published_definition(seed: int, ties: bool) -> None:
    draw = np.random.default_rng(seed)
    size, count, dim = 400, 60, 8
    gallery = torch.from_numpy(draw.integers(-1, 2, (size, 3)) if ties else draw.standard_normal((size, dim))).float()
    gallery[(gallery == 0).all(dim=1)] = 1
    gallery = normalize(gallery, dim=-1)
    queries = normalize(torch.from_numpy(draw.standard_normal((count, gallery.shape[1]))).float(), dim=-1)
    orders = (gallery @ queries.T).sort(dim=0, descending=True, stable=True).indices.T.tolist()
    # Targets near the top, so that every cut-off separates some.
    truths = [draw.choice(order[:120], draw.integers(1, 24), replace=False).tolist() for order in orders]
    names = [str(1000 + row) for row in range(size)]
    aspects = [[ASPECTS[number % 3], *(["addition"] if number % 4 == 1 else [])] for number in range(count)]
    triplets = tuple(
        Triplet(
            names[0], names[own[0]], (str(number),), number, (), tuple(names[row] for row in own[1:]), tuple(aspect)
        )
        for number, (own, aspect) in enumerate(zip(truths, aspects, strict=True))
    )
    split = Split("circo", "val", (QuerySet("circo", triplets, tuple(names)),), {})
    images = FeatureTable({name: row for row, name in enumerate(names)}, gallery)
    texts = FeatureTable({str(number): number for number in range(count)}, queries)
    figures = Evaluation(split, CIRCO_VAL)(images, texts, text_query)
    expected = circo_metrics([order[:50] for order in orders], truths, [own[0] for own in truths], aspects)
    assert figures.metrics == pytest.approx(expected)
    assert list(figures.metrics)[:8] == [f"{kind}@{k}" for kind in ("recall", "map") for k in (5, 10, 25, 50)]
    single = Evaluation(split, replace(CIRCO_VAL, map_at=(), aspect_map_at=None, bests=("recall@5",)))
    recalls = single(images, texts, text_query).metrics
    assert recalls == pytest.approx({key: value for key, value in expected.items() if key in recalls})


def test_many_targets_rank_as_each_does_alone() -> None:
    """In fp32, with copies of images in the gallery, and queries of one target beside one of hundreds."""
    generator = torch.Generator().manual_seed(3)
    half = normalize(torch.randn(300, 16, generator=generator), dim=-1)
    gallery = torch.cat([half, half])
    queries = normalize(torch.randn(40, 16, generator=generator), dim=-1)
    groups = [
        torch.randperm(600, generator=generator)[: 300 if number == 7 else 1 + number % 3].tolist()
        for number in range(40)
    ]
    excluded = torch.randint(0, 600, (40,), generator=generator)
    ranks = rank_targets(queries, gallery, padded(groups), excluded=excluded).targets
    for column in (0, 1, 2, 250):
        numbers = torch.tensor([number for number, group in enumerate(groups) if len(group) > column])
        alone = torch.tensor([groups[number][column] for number in range(40) if len(groups[number]) > column])
        everywhere = torch.tensor([group[0] for group in groups])
        everywhere[numbers] = alone
        expected = rank_targets(queries, gallery, everywhere, excluded=excluded).gallery
        assert torch.equal(ranks[numbers, column], expected[numbers])
