"""One evaluation for all data sets and stages."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mlcl_cli.data.protocols import Protocol, summarise
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.features.bank import Table
from mlcl_cli.retrieval.metrics import recalls
from mlcl_cli.retrieval.ranking import NOBODY, Ranks, rank_targets

Compose = Callable[[Tensor, Tensor], Tensor]
QUERIES_AT_ONCE = 4096


@dataclass(frozen=True)
class Figures:
    """Metrics in percent, and how many queries and gallery images they are over, by set."""

    metrics: dict[str, float]
    queries: dict[str, int]
    gallery: dict[str, int]


def sum_query(text: Tensor, image: Tensor) -> Tensor:
    """The baseline without a combiner: n(f_ref + f_txt)."""
    return normalize(image + text, dim=-1)


def image_query(text: Tensor, image: Tensor) -> Tensor:  # noqa: ARG001
    """The reference alone: n(f_ref)."""
    return normalize(image, dim=-1)


def text_query(text: Tensor, image: Tensor) -> Tensor:  # noqa: ARG001
    """The modifier alone: n(f_txt)."""
    return normalize(text, dim=-1)


@torch.no_grad()
def evaluate(
    split: Split,
    protocol: Protocol,
    images: Table,
    texts: Table,
    compose: Compose,
    caption_of: Callable[[Triplet], str],
) -> Figures:
    """Ranks every query of every set and summarises by `protocol` (method.md, "Validation protocols").

    Raises DataError where a score would not be finite.
    """
    figures = {part.name: set_recalls(part, protocol, images, texts, compose, caption_of) for part in split.sets}
    return Figures(
        summarise(protocol, figures),
        {part.name: len(part.triplets) for part in split.sets},
        {part.name: len(part.gallery) for part in split.sets},
    )


def set_recalls(
    part: QuerySet,
    protocol: Protocol,
    images: Table,
    texts: Table,
    compose: Compose,
    caption_of: Callable[[Triplet], str],
) -> dict[str, float]:
    """Recalls of one set."""
    gallery = normalize(images.of(part.gallery), dim=-1)
    queries = compose_queries(part, images, texts, compose, caption_of)
    ranks = rank_set(part, protocol, queries, gallery)
    return recalls(ranks, protocol.recall_at, protocol.subset_recall_at)


def compose_queries(
    part: QuerySet, images: Table, texts: Table, compose: Compose, caption_of: Callable[[Triplet], str]
) -> Tensor:
    """Unit queries (Q, d) in fp32, one for each triplet of the set."""
    queries = []
    for start in range(0, len(part.triplets), QUERIES_AT_ONCE):
        triplets = part.triplets[start : start + QUERIES_AT_ONCE]
        text = texts.of([caption_of(triplet) for triplet in triplets])
        queries.append(compose(text, images.of([triplet.reference for triplet in triplets])).float())
    return torch.cat(queries)


def rank_set(part: QuerySet, protocol: Protocol, queries: Tensor, gallery: Tensor) -> Ranks:
    """Ranks of the targets of one set, by the protocol's rules."""
    row = {name: number for number, name in enumerate(part.gallery)}
    targets = torch.tensor([row[triplet.target] for triplet in part.triplets if triplet.target is not None])
    excluded = members = None
    if protocol.exclude_reference:
        excluded = torch.tensor([row.get(triplet.reference, NOBODY) for triplet in part.triplets])
    if protocol.subset_recall_at:
        widest = max(len(triplet.members) for triplet in part.triplets)
        members = torch.full((len(part.triplets), widest), NOBODY)
        for number, triplet in enumerate(part.triplets):
            own = [row[name] for name in triplet.members if name in row]
            members[number, : len(own)] = torch.tensor(own, dtype=torch.int64)
    return rank_targets(queries, gallery, targets, excluded=excluded, members=members)
