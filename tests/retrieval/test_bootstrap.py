"""Intervals and paired comparisons: against scipy, by the coverage of simulated runs, and what is refused."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats

from mlcl_cli.data.protocols import CIRR_VAL, FASHIONIQ_ORIGINAL, SHOES, summarize
from mlcl_cli.errors import DataError
from mlcl_cli.retrieval.bootstrap import compare, holm, interval, intervals, resample
from mlcl_cli.retrieval.evaluation import QueryValues, means_of

ONE = replace(SHOES, recall_at=(1,), summary=lambda sets: dict(*sets.values()))


def simulated(count: int, rate: float, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(count) < rate).double()


def one_set(values: torch.Tensor) -> QueryValues:
    return {"set": {"recall@1": values}}


@pytest.mark.parametrize(("count", "rate"), [(60, 0.5), (400, 0.2), (1000, 0.93)])
def test_an_interval_equals_that_of_scipy(count: int, rate: float) -> None:
    values = simulated(count, rate, seed=count)
    ours = intervals(ONE, one_set(values))["recall@1"]
    theirs = stats.bootstrap(
        (100 * values.numpy(),), np.mean, n_resamples=10_000, method="percentile", random_state=1
    ).confidence_interval
    step = 100 / count  # both are quantiles of a grid with this step
    assert ours.low == pytest.approx(theirs.low, abs=1.5 * step + 0.2)
    assert ours.high == pytest.approx(theirs.high, abs=1.5 * step + 0.2)


@pytest.mark.parametrize("gain", [0.0, 0.05, 0.2])
def test_a_paired_difference_equals_that_of_scipy(gain: float) -> None:
    """The second model keeps the first one's hits and adds some: pairing makes the interval narrow."""
    first = simulated(500, 0.4, seed=1)
    second = torch.maximum(first, simulated(500, gain, seed=2))
    ours = compare(ONE, one_set(first), one_set(second))["recall@1"]
    theirs = stats.bootstrap(
        (100 * first.numpy(), 100 * second.numpy()),
        lambda a, b, axis: np.mean(b - a, axis=axis),
        paired=True,
        n_resamples=10_000,
        method="percentile",
        random_state=3,
    )
    assert ours.interval.low == pytest.approx(theirs.confidence_interval.low, abs=0.5)
    assert ours.interval.high == pytest.approx(theirs.confidence_interval.high, abs=0.5)
    assert ours.value == pytest.approx(100 * float((second - first).mean()))
    draws = theirs.bootstrap_distribution
    p = 2 * (min((draws <= 0).sum(), (draws >= 0).sum()) + 1) / (len(draws) + 1)
    assert ours.p == pytest.approx(min(1.0, p), abs=0.02)
    assert (ours.p == 1.0) == (gain == 0)


def test_intervals_cover_the_true_value_as_often_as_they_say() -> None:
    rate, covered = 0.4, 0
    for seed in range(500):
        bounds = intervals(ONE, one_set(simulated(300, rate, seed)), draws=1000, seed=seed)["recall@1"]
        covered += bounds.low <= 100 * rate <= bounds.high
    assert 0.93 <= covered / 500 <= 0.97


def test_p_values_of_equal_models_are_rarely_small() -> None:
    small = 0
    for seed in range(300):
        first, second = (simulated(200, 0.5, seed=2 * seed + side) for side in (0, 1))
        small += compare(ONE, one_set(first), one_set(second), draws=500, seed=seed)["recall@1"].p < 0.05
    assert 0.02 <= small / 300 <= 0.09


def several_sets(seed: int) -> QueryValues:
    return {
        name: {f"recall@{k}": simulated(100 + 20 * number, rate, seed + number) for k, rate in ((10, 0.3), (50, 0.6))}
        for number, name in enumerate(("dress", "shirt", "toptee"))
    }


def test_every_metric_of_the_protocol_is_resampled() -> None:
    values = several_sets(7)
    scores = summarize(FASHIONIQ_ORIGINAL, means_of(values))
    resampled = resample(FASHIONIQ_ORIGINAL, values, draws=2000)
    assert resampled.keys() == scores.keys()
    for key, column in resampled.items():
        bounds = interval(column)
        assert bounds.low < scores[key] < bounds.high
        assert float(column.mean()) == pytest.approx(scores[key], abs=0.5)
    average = sum(resampled[f"{name}/recall@10"] for name in values) / 3
    assert torch.allclose(resampled["average/recall@10"], average)


def test_means_that_are_not_linear_are_computed_on_each_resample() -> None:
    keys = [f"recall@{k}" for k in (1, 5, 10, 50)] + [f"recall_subset@{k}" for k in (1, 2, 3)]
    values = {"cirr": {key: simulated(200, 0.2 + 0.1 * number, number) for number, key in enumerate(keys)}}
    resampled = resample(CIRR_VAL, values, draws=200)
    recalls = torch.stack([resampled[key] for key in keys])
    assert torch.allclose(resampled["harmonic_mean"], 7 / (1 / recalls).sum(dim=0))
    assert torch.allclose(resampled["arithmetic_mean"], recalls.mean(dim=0))


def test_a_metric_of_some_queries_is_a_mean_over_those() -> None:
    values = simulated(100, 0.5, 1)
    values[30:] = torch.nan
    protocol = replace(ONE, map_at=(10,), aspect_map_at=10)
    sets = {"set": {"recall@1": simulated(100, 0.5, 2), "map@10": simulated(100, 0.5, 3), "map@10/negation": values}}
    column = resample(protocol, sets, draws=4000)["map@10/negation"]
    rate = float(values[:30].mean())
    assert float(column.mean()) == pytest.approx(100 * rate, abs=1)
    assert float(column.std()) == pytest.approx(100 * (rate * (1 - rate) / 30) ** 0.5, rel=0.1)


def test_the_same_model_twice_has_no_difference() -> None:
    values = several_sets(3)
    for difference in compare(FASHIONIQ_ORIGINAL, values, values, draws=500).values():
        assert (difference.value, difference.interval.low, difference.interval.high) == (0, 0, 0)
        assert difference.p == difference.adjusted == 1


def test_a_small_query_set_has_no_interval() -> None:
    with pytest.raises(DataError, match="set has 19 queries: too few for an interval, which needs 20"):
        intervals(ONE, one_set(simulated(19, 0.5, 1)))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_holm_corrects_the_smallest_p_the_most(order: tuple[int, ...]) -> None:
    p_values, expected = [0.01, 0.02, 0.04], [0.03, 0.04, 0.04]
    assert holm([p_values[number] for number in order]) == pytest.approx([expected[number] for number in order])


def test_holm_stays_within_one() -> None:
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
