"""What a model does with each query of a split: ranks, whose work they are, and queries worth looking at."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlcl_cli.data.captions import validation_caption
from mlcl_cli.data.records import Split, Triplet
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.html_report.change_kinds import kinds_of
from mlcl_cli.retrieval.evaluation import Compose, Evaluation, Figures
from mlcl_cli.retrieval.metrics import recall
from mlcl_cli.retrieval.ranking import UNRANKED, best_of_some
from mlcl_cli.seeding import derive_generator

TOP = 10  # what is shown of a ranking; a hit is a target among them
LENGTHS = (3, 6, 9, 12, 16)  # words: the last of each class of captions


@dataclass(frozen=True, slots=True)
class QueryResult:
    """A query and its target's 1-based ranks; None where the target is not ranked, as it is its own reference.

    `subset_rank` is the rank among a CIRR triplet's members; `alone` the rank by each part of the query alone.
    """

    part: str
    triplet: Triplet
    caption: str
    rank: int | None
    subset_rank: int | None
    alone: Mapping[str, int | None]

    @property
    def hit(self) -> bool:
        """Whether the target is among the first TOP."""
        return self.rank is not None and self.rank <= TOP


@dataclass(frozen=True, slots=True)
class RetrievedImage:
    """A gallery image and its score, the cosine of its angle with the query."""

    name: str
    score: float


@dataclass(frozen=True)
class Analysis:
    """All queries of a split in its order, and for those in `samples`, by kind of sample, their first TOP images."""

    figures: Figures
    asked: Sequence[QueryResult]
    samples: Mapping[str, Sequence[int]]
    tops: Mapping[int, Sequence[RetrievedImage]]

    def by_length(self) -> dict[str, list[int]]:
        """Queries by how many words their caption has."""
        classes: dict[str, list[int]] = {}
        for first, last in zip((0, *(end + 1 for end in LENGTHS)), (*LENGTHS, None), strict=True):
            name = f"{first} or more words" if last is None else f"{first} to {last} words"
            own = [
                number
                for number, query in enumerate(self.asked)
                if first <= len(query.caption.split()) and (last is None or len(query.caption.split()) <= last)
            ]
            if own:
                classes[name] = own
        return classes

    def by_kind(self) -> dict[str, list[int]]:
        """Queries by the kinds of change that their caption names, most frequent first; a caption may name several."""
        classes: dict[str, list[int]] = {}
        for number, query in enumerate(self.asked):
            for kind in kinds_of(query.caption):
                classes.setdefault(kind, []).append(number)
        return dict(sorted(classes.items(), key=lambda item: -len(item[1])))

    def recall(self, queries: Sequence[int], alone: str | None = None) -> float:
        """recall@TOP in percent over `queries`, by the whole query or by one part of it."""
        ranks = [self.asked[n].rank if alone is None else self.asked[n].alone[alone] for n in queries]
        return recall(torch.tensor([UNRANKED if rank is None else rank for rank in ranks]), TOP)


def analysis(
    evaluation: Evaluation,
    split: Split,
    images: FeatureTable,
    texts: FeatureTable,
    compose: Compose,
    alone: Mapping[str, Compose],
    *,
    sample: int,
    seed: int = 0,
    advance: Callable[[int], object] = lambda _: None,
) -> Analysis:
    """Ranks every query as `evaluation` does, also by each part `alone`, and picks `sample` of each kind to show.

    `advance` hears how many queries are ranked, len(alone) + 1 times in all. Raises as `Evaluation` does.
    """
    ranks = evaluation.ranks(images, texts, compose, advance)
    parts = {name: evaluation.ranks(images, texts, one, advance) for name, one in alone.items()}
    asked = []
    for part in split.sets:
        told = ranks[part.name]
        for row, triplet in enumerate(part.triplets):
            by_part = {name: _rank(found[part.name].gallery, row) for name, found in parts.items()}
            subset = None if told.subset is None else _rank(told.subset, row)
            caption = validation_caption(split.dataset, triplet)
            asked.append(QueryResult(part.name, triplet, caption, _rank(told.gallery, row), subset, by_part))
    samples = _samples(asked, sample, seed)
    first = [number for number, query in enumerate(asked) if query.rank == 1]
    tops = dict(
        _tops(evaluation, split, images, texts, compose, {*first, *(n for some in samples.values() for n in some)})
    )
    samples["easiest"] = sorted(first, key=lambda n: -_margin(tops[n]))[:sample]
    shown = {number for some in samples.values() for number in some}
    return Analysis(evaluation.figures(ranks), asked, samples, {number: tops[number] for number in sorted(shown)})


def _samples(asked: Sequence[QueryResult], count: int, seed: int) -> dict[str, list[int]]:
    """Hits and misses drawn by lot, and the queries whose targets are ranked last."""
    order = torch.randperm(len(asked), generator=derive_generator(seed, "report")).tolist()
    hits = [number for number in order if asked[number].hit]
    misses = [number for number in order if not asked[number].hit]
    hardest = sorted(misses, key=lambda n: (-(asked[n].rank or 0), n))
    return {"hits": sorted(hits[:count]), "misses": sorted(misses[:count]), "hardest": hardest[:count]}


def _tops(
    evaluation: Evaluation,
    split: Split,
    images: FeatureTable,
    texts: FeatureTable,
    compose: Compose,
    wanted: Collection[int],
) -> Iterator[tuple[int, list[RetrievedImage]]]:
    """The first TOP images of the queries `wanted`, which are numbered over all sets."""
    before = 0
    for part, (_, rows, queries, gallery) in zip(split.sets, evaluation.composed(images, texts, compose), strict=True):
        own = sorted(number - before for number in wanted if before <= number < before + len(part.triplets))
        if own:
            best = best_of_some(queries, gallery, torch.tensor(own), TOP, excluded=rows.excluded)
            for number, names, scores in zip(own, best.rows.tolist(), best.scores.tolist(), strict=True):
                pairs = zip(names, scores, strict=True)
                yield (
                    before + number,
                    [RetrievedImage(part.gallery[row], score) for row, score in pairs if score > -math.inf],
                )
        before += len(part.triplets)


def _margin(top: Sequence[RetrievedImage]) -> float:
    return top[0].score - top[1].score if len(top) > 1 else math.inf


def _rank(ranks: Tensor, row: int) -> int | None:
    rank = int(ranks[row])
    return None if rank == UNRANKED else rank
