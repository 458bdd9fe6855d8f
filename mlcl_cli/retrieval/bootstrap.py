"""Intervals and paired comparisons of metrics by a bootstrap over queries (METHOD.md, Section 8.6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlcl_cli.data.protocols import Protocol, summarize
from mlcl_cli.errors import DataError
from mlcl_cli.retrieval.evaluation import QueryValues, means_of
from mlcl_cli.seeding import derive_generator

DRAWS = 10_000
LEVEL = 0.95
MIN_QUERIES = 20
MAX_INDICES = 20_000_000  # drawn at once: 160 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """The bounds of a percentile interval, in the metric's unit."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of two models on the same queries: second minus first, its interval, and two-sided p-values.

    `adjusted` is `p` after Holm's correction over all metrics that were compared.
    """

    first: float
    second: float
    interval: Interval
    p: float
    adjusted: float

    @property
    def value(self) -> float:
        """Second minus first."""
        return self.second - self.first


def resample(protocol: Protocol, values: QueryValues, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Tensor]:
    """The protocol's metrics on `draws` resamples of the queries, float64 (draws,), in percent.

    The queries of each query set are drawn with replacement, as many as it has. Equal seeds draw equal queries, so
    the metrics of two models on the same queries are paired. Raises DataError for a query set that is too small.
    """
    means: dict[str, dict[str, list[float]]] = {}
    for name, columns in values.items():
        count = len(next(iter(columns.values())))
        if count < MIN_QUERIES:
            what = f"{name} has {count} queries: too few for an interval, which needs {MIN_QUERIES}"
            raise DataError(what, remedy="Evaluate without intervals")
        table = torch.stack([*columns.values()], dim=1)  # NaN where a metric leaves a query out
        present = (~table.isnan()).double()
        table = table.nan_to_num()
        generator = derive_generator(seed, "bootstrap", name)
        sums = []
        for start in range(0, draws, max(1, MAX_INDICES // count)):
            rows = min(draws - start, max(1, MAX_INDICES // count))
            drawn = torch.randint(count, (rows, count), generator=generator)
            times = torch.zeros(rows, count, dtype=torch.float64).scatter_add_(
                1, drawn, torch.ones_like(drawn, dtype=torch.float64)
            )
            sums.append(times @ table / (times @ present))
        means[name] = dict(zip(columns, (100 * torch.cat(sums)).T.tolist(), strict=True))
    return _summaries(protocol, means, draws)


def _summaries(protocol: Protocol, means: Mapping[str, Mapping[str, Sequence[float]]], draws: int) -> dict[str, Tensor]:
    """The protocol's metrics of each draw."""
    summaries = []
    for draw in range(draws):
        drawn = {name: {key: column[draw] for key, column in columns.items()} for name, columns in means.items()}
        summaries.append(summarize(protocol, drawn))
    return {key: torch.tensor([summary[key] for summary in summaries], dtype=torch.float64) for key in summaries[0]}


def interval(resampled: Tensor, level: float = LEVEL) -> Interval:
    """The percentile interval of a metric's resamples (draws,)."""
    tail = (1 - level) / 2
    low, high = torch.quantile(resampled, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(low, high)


def intervals(protocol: Protocol, values: QueryValues, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Interval]:
    """The interval of each of the protocol's metrics. Raises as `resample` does."""
    resampled = resample(protocol, values, draws=draws, seed=seed)
    return {key: interval(column) for key, column in resampled.items()}


def compare(
    protocol: Protocol, first: QueryValues, second: QueryValues, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Difference]:
    """The paired differences of each of the protocol's metrics, `second` minus `first`, on the same queries.

    A p-value is twice the share of resamples on the far side of 0, counting the observation itself.
    Raises as `resample` does.
    """
    scores = [summarize(protocol, means_of(values)) for values in (first, second)]
    before, after = (resample(protocol, values, draws=draws, seed=seed) for values in (first, second))
    found = {}
    for key in scores[0]:
        change = after[key] - before[key]
        tails = [int((change <= 0).sum()), int((change >= 0).sum())]
        found[key] = interval(change), min(1.0, 2 * (min(tails) + 1) / (draws + 1))
    adjusted = holm([p for _, p in found.values()])
    return {
        key: Difference(scores[0][key], scores[1][key], bounds, p, corrected)
        for (key, (bounds, p)), corrected in zip(found.items(), adjusted, strict=True)
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p-values, in their order."""
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for position, number in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - position) * p_values[number]))
        adjusted[number] = highest
    return adjusted
