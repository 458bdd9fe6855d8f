"""Queries without a combiner, against plain arithmetic, and the choice of the text's weight, against a loop."""

from math import sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.protocols import FASHIONIQ_ORIGINAL, SHOES, Protocol
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.retrieval.evaluation import Evaluation, product_query, weighted_query
from mlcl_cli.retrieval.text_weight import choose_text_weight, drawn_triplets

OWN = DATASETS["fashion200k"].protocol()
NUMBERS = st.floats(-4, 4, width=16)


def unit(vector: list[float]) -> list[float]:
    length = sqrt(sum(value * value for value in vector))
    return [value / length if length else 0.0 for value in vector]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[list[float]], list[list[float]]]:
    """Raw features of some texts and as many images; zeros and equal vectors are among them."""
    count, dim = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    vectors = st.lists(st.lists(NUMBERS, min_size=dim, max_size=dim), min_size=count, max_size=count)
    return draw(vectors), draw(vectors)


@given(pair=pairs(), weight=st.floats(0, 1))
def test_weighted_query_is_the_weighted_mean_of_unit_features(
    pair: tuple[list[list[float]], list[list[float]]], weight: float
) -> None:
    composed = weighted_query(weight)(*map(torch.tensor, pair))
    for text, image, row in zip(*pair, composed.tolist(), strict=True):
        mean = [weight * t + (1 - weight) * i for t, i in zip(unit(text), unit(image), strict=True)]
        if sqrt(sum(value * value for value in mean)) > 1e-3:  # else rounding decides the direction
            assert row == pytest.approx(unit(mean), abs=1e-3)


@given(pair=pairs())
def test_product_query_is_the_product_of_unit_features(pair: tuple[list[list[float]], list[list[float]]]) -> None:
    composed = product_query(*map(torch.tensor, pair))
    for text, image, row in zip(*pair, composed.tolist(), strict=True):
        product = [t * i for t, i in zip(unit(text), unit(image), strict=True)]
        if sqrt(sum(value * value for value in product)) > 1e-3:
            assert row == pytest.approx(unit(product), abs=1e-3)


def test_product_of_features_without_a_common_direction_is_zero() -> None:
    assert product_query(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])).tolist() == [[0, 0]]


def random_split(seed: int, names: list[str], sets: tuple[str, ...], count: int) -> Split:
    draw = torch.Generator().manual_seed(seed)

    def triplet(number: int) -> Triplet:
        reference, target, *others = torch.randperm(len(names), generator=draw)[:4].tolist()
        others = others[: number % 3]
        return Triplet(
            names[reference], names[target], (f"text {number}",), other_targets=tuple(names[o] for o in others)
        )

    parts = [QuerySet(name, tuple(triplet(number) for number in range(count)), tuple(names)) for name in sets]
    return Split("made", "train", tuple(parts), {})


def random_table(seed: int, names: list[str]) -> FeatureTable:
    values = torch.randn(len(names), 4, generator=torch.Generator().manual_seed(seed))
    return FeatureTable({name: row for row, name in enumerate(names)}, values)


def naive_recall(split: Split, protocol: Protocol, images: FeatureTable, texts: FeatureTable, weight: float) -> float:
    """The mean over sets and cut-offs, from a sort of every gallery in double precision."""

    def vector(table: FeatureTable, name: str) -> Tensor:
        value = table.values[table.rows[name]].double()
        return value / value.norm()

    recalls = []
    for k in protocol.recall_at:
        for part in split.sets:
            hits = 0
            for triplet in part.triplets:
                mean = weight * vector(texts, triplet.query_text) + (1 - weight) * vector(images, triplet.reference)
                ranked = [n for n in part.gallery if not (protocol.exclude_reference and n == triplet.reference)]
                ranked.sort(key=lambda name, mean=mean: -float(mean @ vector(images, name)))  # type: ignore[misc]
                wanted = triplet.targets() if protocol.any_target else triplet.targets()[:1]
                hits += any(name in wanted for name in ranked[:k])
            recalls.append(100 * hits / len(part.triplets))
    return sum(recalls) / len(recalls)


@pytest.mark.parametrize(
    ("protocol", "sets", "size"), [(SHOES, ("a",), 30), (FASHIONIQ_ORIGINAL, ("a", "b"), 30), (OWN, ("a",), 30)]
)
@pytest.mark.parametrize("seed", range(3))
def test_the_chosen_weight_is_the_best_of_21_and_the_nearest_to_a_half(
    protocol: Protocol, sets: tuple[str, ...], size: int, seed: int
) -> None:
    names = [f"image {number}" for number in range(size)]
    split = random_split(seed, names, sets, count=12)
    images, texts = random_table(seed, names), random_table(seed + 100, [f"text {number}" for number in range(12)])
    images.values[: size // 2] += texts.values.mean(dim=0)  # so that neither part alone is best
    recalls = {step: naive_recall(split, protocol, images, texts, step * 0.05) for step in range(21)}
    best = None
    for step in (10, 9, 11, 8, 12, 7, 13, 6, 14, 5, 15, 4, 16, 3, 17, 2, 18, 1, 19, 0, 20):
        if best is None or recalls[step] > recalls[best] + 1e-9:
            best = step
    assert best is not None
    assert choose_text_weight(Evaluation(split, protocol), images, texts) == pytest.approx(best * 0.05)


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    count=st.integers(1, 20),
    seed=st.integers(0, 2**63 - 1),
)
def test_drawn_triplets_are_some_of_the_split_with_their_images_as_the_gallery(
    sizes: list[int], count: int, seed: int
) -> None:
    def part(name: str, size: int) -> QuerySet:
        numbers = range(size)
        return QuerySet(
            name, tuple(Triplet(f"{name}{n}", f"{name}{n + 1}", ("a",), members=("m",)) for n in numbers), ()
        )

    split = Split("made", "train", tuple(part(str(row), size) for row, size in enumerate(sizes)), {})
    drawn = drawn_triplets(split, count, seed)
    assert drawn == drawn_triplets(split, count, seed)
    assert len(drawn.triplets) == min(count, sum(sizes))
    whole = {own.name: own.triplets for own in split.sets}
    for own in drawn.sets:
        assert [triplet for triplet in whole[own.name] if triplet in own.triplets] == [*own.triplets] != []
        assert {*own.gallery} == {name for triplet in own.triplets for name in triplet.images()}
        assert len({*own.gallery}) == len(own.gallery)


def test_another_seed_draws_other_triplets() -> None:
    split = random_split(0, [f"{number}" for number in range(9)], ("a",), count=200)
    assert drawn_triplets(split, 20, seed=0) != drawn_triplets(split, 20, seed=1)
