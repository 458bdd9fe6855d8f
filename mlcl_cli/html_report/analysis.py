"""What a model does with each query of a split: ranks, the share of each query part, and queries worth a look."""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
import yaml
from torch import Tensor

from mlcl_cli.data.protocols import Protocol, chance
from mlcl_cli.data.records import Triplet
from mlcl_cli.errors import DataError
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.retrieval.bootstrap import Interval, intervals
from mlcl_cli.retrieval.evaluation import Compose, Evaluation, Figures, QueryValues, counted_targets
from mlcl_cli.retrieval.ranking import PAD_INDEX, UNRANKED, Ranks
from mlcl_cli.seeding import derive_generator

TOP = 10  # how much of a ranking is shown; a hit is a target among them
STRIPS = 6  # queries that open the page
WHOLE, CHANCE = "whole query", "chance"
MAX_WORDS = (3, 6, 9, 12, 16)  # the longest caption of each class but the last
LENGTHS = ("0 to 3 words", "4 to 6 words", "7 to 9 words", "10 to 12 words", "13 to 16 words", "17 or more words")
OTHER = "other"
# The kinds of change that a modifier asks for, guessed from its words, in the same way for every data set.
WORDS: Mapping[str, str] = yaml.safe_load((files(__package__) / "change_kinds.yaml").read_text("utf-8"))
_PATTERNS = {
    kind: re.compile(rf"\b(?:{'|'.join(words.split())})\b".replace("_", r"\s"), re.IGNORECASE)
    for kind, words in WORDS.items()
}


@dataclass(frozen=True, slots=True)
class QueryResult:
    """A query and its target's 1-based ranks; None where the target is not ranked, as it is its own reference.

    Where the protocol counts any target, the rank is the best among `targets`, which holds all right answers.
    `subset_rank` is the rank among a CIRR triplet's members, `part_ranks` holds the ranks by each query part alone.
    """

    set_name: str
    triplet: Triplet
    caption: str
    targets: tuple[str, ...]
    rank: int | None
    subset_rank: int | None
    part_ranks: Mapping[str, int | None]

    @property
    def hit(self) -> bool:
        """Whether the target is among the first TOP."""
        return self.rank is not None and self.rank <= TOP


@dataclass(frozen=True, slots=True)
class RetrievedImage:
    """A gallery image and its score, the cosine similarity with the query."""

    name: str
    score: float


@dataclass(frozen=True)
class System:
    """A way to rank the gallery: its metrics in percent, and their intervals where there are enough queries."""

    name: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval] | None = None


@dataclass(frozen=True)
class Share:
    """How many of some queries are hits, in percent, and Wilson's 95 % interval of it."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Analysis:
    """All queries of a split in order, the numbers of those in `samples` by kind, and the first TOP images of these.

    `strips` are up to STRIPS random queries, hits and misses in the proportion of all, but at least one of each.
    `paths` holds the files of the split's images, `systems` what the whole query is compared with, itself last,
    `values` each query's metrics, for paired comparisons. `tops` holds all queries if all were asked for.
    """

    figures: Figures
    queries: Sequence[QueryResult]
    samples: Mapping[str, Sequence[int]]
    strips: Sequence[int]
    tops: Mapping[int, Sequence[RetrievedImage]]
    paths: Mapping[str, Path]
    systems: Sequence[System]
    protocol: Protocol
    values: QueryValues

    @property
    def intervals(self) -> Mapping[str, Interval] | None:
        """The intervals of the whole query's metrics; None for too few queries."""
        return self.systems[-1].intervals

    @property
    def several_targets(self) -> bool:
        """Whether a query has more than one right answer."""
        return any(len(query.targets) > 1 for query in self.queries)

    def by_length(self) -> dict[str, list[int]]:
        """Query numbers by the length of the caption, shortest first."""
        classes = self._classes(lambda query: [LENGTHS[bisect_left(MAX_WORDS, len(query.caption.split()))]])
        return {name: classes[name] for name in LENGTHS if name in classes}

    def by_kind(self) -> dict[str, list[int]]:
        """Query numbers by the kinds of change that the caption names, most frequent first; there may be several."""
        classes = self._classes(lambda query: kinds_of(query.caption))
        return dict(sorted(classes.items(), key=lambda item: -len(item[1])))

    def recall(self, numbers: Sequence[int], part: str | None = None) -> float:
        """recall@TOP (METHOD.md, Equation 20) of the queries `numbers`, by the whole query or by one of its parts."""
        return self.share(numbers, part).value

    def share(self, numbers: Sequence[int], part: str | None = None) -> Share:
        """The same with its interval."""
        queries = [self.queries[number] for number in numbers]
        ranks = [query.rank if part is None else query.part_ranks[part] for query in queries]
        hits = sum(rank is not None and rank <= TOP for rank in ranks)
        return Share(100 * hits / len(ranks), wilson(hits, len(ranks)))

    def _classes(self, names_of: Callable[[QueryResult], Iterable[str]]) -> dict[str, list[int]]:
        classes: dict[str, list[int]] = {}
        for number, query in enumerate(self.queries):
            for name in names_of(query):
                classes.setdefault(name, []).append(number)
        return classes


def kinds_of(caption: str) -> tuple[str, ...]:
    """The kinds of change that `caption` names, in a fixed order; OTHER alone where none is recognized."""
    return tuple(kind for kind, pattern in _PATTERNS.items() if pattern.search(caption)) or (OTHER,)


def wilson(hits: int, count: int) -> Interval:
    """Wilson's 95 % interval of the share of hits, in percent."""
    z, share = 1.959964, hits / count
    center = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Interval(100 * max(0.0, center - half), 100 * min(1.0, center + half))


def analyze(
    evaluation: Evaluation,
    images: FeatureTable,
    texts: FeatureTable,
    compose: Compose,
    parts: Mapping[str, Compose],
    *,
    sample: int,
    compared: Collection[str] = (),
    everything: bool = False,
    seed: int = 0,
    advance: Callable[[int], object] = lambda _: None,
) -> Analysis:
    """Rank every query as `evaluation` does, also by each of the query's `parts`, and sample `sample` of each kind.

    The parts that are `compared` get metrics and intervals of their own; with `everything`, `tops` holds all queries.
    `advance` is called with the number of further queries ranked, each len(parts) + 1 times. Raises as `Evaluation`
    does.
    """
    ranks = evaluation.ranks(images, texts, compose, advance)
    by_part = {name: evaluation.ranks(images, texts, part, advance) for name, part in parts.items()}
    queries = _results(evaluation, ranks, by_part)
    samples, strips = _samples(queries, sample, seed), _strips(queries, seed)
    first = [number for number, query in enumerate(queries) if query.rank == 1]
    wanted = {*first, *strips, *(number for numbers in samples.values() for number in numbers)}
    tops = dict(_tops(evaluation, images, texts, compose, range(len(queries)) if everything else wanted))
    samples["easiest"] = sorted(first, key=lambda number: -_margin(tops[number]))[:sample]
    shown = range(len(queries)) if everything else {*strips, *(n for numbers in samples.values() for n in numbers)}
    systems = [_system(evaluation, name, by_part[name]) for name in by_part if name in compared]
    return Analysis(
        figures=evaluation.figures(ranks),
        queries=queries,
        samples=samples,
        strips=strips,
        tops={number: tops[number] for number in shown},
        paths=evaluation.split.paths,
        systems=[*_chance(evaluation), *systems, _system(evaluation, WHOLE, ranks)],
        protocol=evaluation.protocol,
        values=evaluation.values(ranks),
    )


def _results(
    evaluation: Evaluation, ranks: Mapping[str, Ranks], by_part: Mapping[str, Mapping[str, Ranks]]
) -> list[QueryResult]:
    def of(ranks: Ranks) -> list[int | None]:
        return _as_list(ranks.best if evaluation.protocol.any_target else ranks.gallery)

    results = []
    for part in evaluation.split.sets:
        own, subset = of(ranks[part.name]), _as_list(ranks[part.name].subset)
        of_parts = {name: of(some[part.name]) for name, some in by_part.items()}
        results += [
            QueryResult(
                set_name=part.name,
                triplet=triplet,
                caption=triplet.query_text,
                targets=counted_targets(triplet, evaluation.protocol),
                rank=own[row],
                subset_rank=subset[row] if subset else None,
                part_ranks={name: column[row] for name, column in of_parts.items()},
            )
            for row, triplet in enumerate(part.triplets)
        ]
    return results


def _system(evaluation: Evaluation, name: str, ranks: Mapping[str, Ranks]) -> System:
    try:
        bounds = intervals(evaluation.protocol, evaluation.values(ranks))
    except DataError:  # too few queries
        bounds = None
    return System(name, evaluation.figures(ranks).metrics, bounds)


def _chance(evaluation: Evaluation) -> list[System]:
    """A random ranking, where its expected metrics are known: one target for each query, no mean average precision."""
    protocol, triplets = evaluation.protocol, evaluation.split.triplets
    if protocol.map_at or any(len(counted_targets(triplet, protocol)) > 1 for triplet in triplets):
        return []
    return [System(CHANCE, chance(protocol, {part.name: len(part.gallery) for part in evaluation.split.sets}))]


def _samples(queries: Sequence[QueryResult], count: int, seed: int) -> dict[str, list[int]]:
    """Random hits, random misses, and the queries whose targets rank lowest."""
    order = torch.randperm(len(queries), generator=derive_generator(seed, "report")).tolist()
    hits = [number for number in order if queries[number].hit]
    misses = [number for number in order if not queries[number].hit]
    hardest = sorted(misses, key=lambda number: (-(queries[number].rank or 0), number))
    return {
        "hits": sorted(hits[:count]),
        "misses": sorted(misses[:count]),
        "hardest": hardest[:count],
    }


def _strips(queries: Sequence[QueryResult], seed: int) -> list[int]:
    order = torch.randperm(len(queries), generator=derive_generator(seed, "report", "strips")).tolist()
    hits = [number for number in order if queries[number].hit]
    misses = [number for number in order if not queries[number].hit]
    few = min(len(misses), max(1, STRIPS - round(STRIPS * len(hits) / len(queries))))
    shown = hits[: max(STRIPS - few, min(1, len(hits)))]
    return [*shown, *misses[: STRIPS - len(shown)]]


def _tops(
    evaluation: Evaluation, images: FeatureTable, texts: FeatureTable, compose: Compose, wanted: Collection[int]
) -> Iterator[tuple[int, list[RetrievedImage]]]:
    """The first TOP images of the queries `wanted`, which are numbered across all sets."""
    start = 0
    for queries in evaluation.compose(images, texts, compose):
        end = start + len(queries.part.triplets)
        if numbers := sorted(number for number in wanted if start <= number < end):
            top = queries.top(TOP, selected=torch.tensor(numbers) - start)
            for number, rows, scores in zip(numbers, top.rows.tolist(), top.scores.tolist(), strict=True):
                pairs = zip(rows, scores, strict=True)
                yield number, [RetrievedImage(queries.part.gallery[row], s) for row, s in pairs if row != PAD_INDEX]
        start = end


def _margin(top: Sequence[RetrievedImage]) -> float:
    return top[0].score - top[1].score if len(top) > 1 else math.inf


def _as_list(ranks: Tensor | None) -> list[int | None]:
    return [] if ranks is None else [None if rank == UNRANKED else rank for rank in ranks.tolist()]
