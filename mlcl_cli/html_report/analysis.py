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

from mlcl_cli.data.records import Triplet
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.retrieval.evaluation import Compose, Evaluation, Figures
from mlcl_cli.retrieval.ranking import PAD_INDEX, UNRANKED
from mlcl_cli.seeding import derive_generator

TOP = 10  # how much of a ranking is shown; a hit is a target among them
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

    `subset_rank` is the rank among a CIRR triplet's members, `part_ranks` holds the ranks by each query part alone.
    """

    set_name: str
    triplet: Triplet
    caption: str
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
class Analysis:
    """All queries of a split in order, the numbers of those in `samples` by kind, and the first TOP images of these.

    `paths` holds the files of the split's images.
    """

    figures: Figures
    queries: Sequence[QueryResult]
    samples: Mapping[str, Sequence[int]]
    tops: Mapping[int, Sequence[RetrievedImage]]
    paths: Mapping[str, Path]

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
        queries = [self.queries[number] for number in numbers]
        ranks = [query.rank if part is None else query.part_ranks[part] for query in queries]
        return 100 * sum(rank is not None and rank <= TOP for rank in ranks) / len(ranks)

    def _classes(self, names_of: Callable[[QueryResult], Iterable[str]]) -> dict[str, list[int]]:
        classes: dict[str, list[int]] = {}
        for number, query in enumerate(self.queries):
            for name in names_of(query):
                classes.setdefault(name, []).append(number)
        return classes


def kinds_of(caption: str) -> tuple[str, ...]:
    """The kinds of change that `caption` names, in a fixed order; OTHER alone where none is recognized."""
    return tuple(kind for kind, pattern in _PATTERNS.items() if pattern.search(caption)) or (OTHER,)


def analyze(
    evaluation: Evaluation,
    images: FeatureTable,
    texts: FeatureTable,
    compose: Compose,
    parts: Mapping[str, Compose],
    *,
    sample: int,
    seed: int = 0,
    advance: Callable[[int], object] = lambda _: None,
) -> Analysis:
    """Rank every query as `evaluation` does, also by each of the query's `parts`, and sample `sample` of each kind.

    `advance` is called with the number of further queries ranked, each len(parts) + 1 times. Raises as `Evaluation`
    does.
    """
    ranks = evaluation.ranks(images, texts, compose, advance)
    by_part = {name: evaluation.ranks(images, texts, part, advance) for name, part in parts.items()}
    queries = [
        QueryResult(
            set_name=query_set.name,
            triplet=triplet,
            caption=triplet.query_text,
            rank=_rank(ranks[query_set.name].gallery, row),
            subset_rank=_rank(ranks[query_set.name].subset, row),
            part_ranks={name: _rank(part[query_set.name].gallery, row) for name, part in by_part.items()},
        )
        for query_set in evaluation.split.sets
        for row, triplet in enumerate(query_set.triplets)
    ]
    samples = _samples(queries, sample, seed)
    first = [number for number, query in enumerate(queries) if query.rank == 1]
    wanted = {*first, *(number for numbers in samples.values() for number in numbers)}
    tops = dict(_tops(evaluation, images, texts, compose, wanted))
    samples["easiest"] = sorted(first, key=lambda number: -_margin(tops[number]))[:sample]
    shown = sorted({number for numbers in samples.values() for number in numbers})
    return Analysis(
        figures=evaluation.figures(ranks),
        queries=queries,
        samples=samples,
        tops={number: tops[number] for number in shown},
        paths=evaluation.split.paths,
    )


def _samples(queries: Sequence[QueryResult], count: int, seed: int) -> dict[str, list[int]]:
    """Random hits, random misses, and the queries whose targets rank lowest."""
    order = torch.randperm(len(queries), generator=derive_generator(seed, "report")).tolist()
    hits = [number for number in order if queries[number].hit]
    misses = [number for number in order if not queries[number].hit]
    hardest = sorted(misses, key=lambda number: (-(queries[number].rank or 0), number))
    return {"hits": sorted(hits[:count]), "misses": sorted(misses[:count]), "hardest": hardest[:count]}


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


def _rank(ranks: Tensor | None, row: int) -> int | None:
    return None if ranks is None or ranks[row] == UNRANKED else int(ranks[row])
