"""One evaluation for all data sets and stages."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mlcl_cli.data.protocols import Protocol, summarize
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.models.combiner import Combiner, Level
from mlcl_cli.retrieval.metrics import recalls
from mlcl_cli.retrieval.ranking import PAD_INDEX, Ranks, rank_targets

Compose = Callable[[Tensor, Tensor], Tensor]
QUERIES_AT_ONCE = 512


@dataclass(frozen=True)
class Figures:
    """Metrics in percent, and how many queries and gallery images they are over, by set."""

    metrics: dict[str, float]
    queries: dict[str, int]
    gallery: dict[str, int]


def sum_query(text: Tensor, image: Tensor) -> Tensor:
    """The baseline without a combiner (METHOD.md, Equation 17): n(f_ref + f_txt)."""
    return normalize(image + text, dim=-1)


def image_query(text: Tensor, image: Tensor) -> Tensor:  # noqa: ARG001
    """The reference alone: n(f_ref)."""
    return normalize(image, dim=-1)


def text_query(text: Tensor, image: Tensor) -> Tensor:  # noqa: ARG001
    """The modifier alone: n(f_txt)."""
    return normalize(text, dim=-1)


def combiner_query(combiner: Combiner, weights: Literal["released", "matched"]) -> Compose:
    """The combiner's query with those level weights (METHOD.md, Equations 15 and 16). Call in eval mode."""
    return lambda text, image: combiner.queries(text, image, matched=weights == "matched")


def level_query(combiner: Combiner, level: Level) -> Compose:
    """One level of the combiner alone, as a unit query. Call in eval mode."""

    def compose(text: Tensor, image: Tensor) -> Tensor:
        return normalize(combiner.query_parts(text, image)[level], dim=-1)

    return compose


class IndexedSet(NamedTuple):
    """A query set as int64 rows on the device.

    `gallery` (G,) and `references` (Q,) are rows of the image table, `captions` (Q,) of the text table; `targets`,
    `excluded` and `members` are what `rank_targets` takes.
    """

    gallery: Tensor
    references: Tensor
    captions: Tensor
    targets: Tensor
    excluded: Tensor | None
    members: Tensor | None


class Composed(NamedTuple):
    """A set, its unit queries (Q, d) and its gallery's unit features (G, d)."""

    name: str
    rows: IndexedSet
    queries: Tensor
    gallery: Tensor


class Evaluation:
    """A split's protocol (METHOD.md, Section 8.2), for any number of features and queries.

    The names are looked up once: a validation after every epoch is gathers and products.
    """

    def __init__(self, split: Split, protocol: Protocol, caption_of: Callable[[Triplet], str]) -> None:
        self._split, self._protocol, self._caption_of = split, protocol, caption_of
        self._rows: tuple[Mapping[str, int], Mapping[str, int]] = ({}, {})
        self._sets: list[IndexedSet] = []

    def __call__(
        self,
        images: FeatureTable,
        texts: FeatureTable,
        compose: Compose,
        advance: Callable[[int], object] = lambda _: None,
    ) -> Figures:
        """Ranks every query of every set and summarises; `advance` hears how many more are ranked.

        Raises NotFiniteError where a score would not be finite.
        """
        return self.figures(self.ranks(images, texts, compose, advance))

    def figures(self, ranks: Mapping[str, Ranks]) -> Figures:
        """The protocol's figures of `ranks` by set."""
        parts, at = self._split.sets, (self._protocol.recall_at, self._protocol.subset_recall_at)
        return Figures(
            summarize(self._protocol, {name: recalls(found, *at) for name, found in ranks.items()}),
            {part.name: len(part.triplets) for part in parts},
            {part.name: len(part.gallery) for part in parts},
        )

    def ranks(
        self,
        images: FeatureTable,
        texts: FeatureTable,
        compose: Compose,
        advance: Callable[[int], object] = lambda _: None,
    ) -> dict[str, Ranks]:
        """The targets' ranks of each set, in the order of its triplets. Raises as a call does."""
        return {
            name: rank_targets(
                queries, gallery, part.targets, excluded=part.excluded, members=part.members, advance=advance
            )
            for name, part, queries, gallery in self.composed(images, texts, compose)
        }

    @torch.no_grad()
    def composed(self, images: FeatureTable, texts: FeatureTable, compose: Compose) -> Iterator[Composed]:
        """The sets, one at a time, with their unit queries and galleries."""
        if (images.rows, texts.rows) != self._rows:
            self._rows = (images.rows, texts.rows)
            self._sets = [index_set(part, self._protocol, images, texts, self._caption_of) for part in self._split.sets]
        for part, indexed in zip(self._split.sets, self._sets, strict=True):
            gallery = normalize(images.values.index_select(0, indexed.gallery), dim=-1)
            queries = compose_queries(indexed.captions, indexed.references, images.values, texts.values, compose)
            yield Composed(part.name, indexed, queries, gallery)


def compose_queries(captions: Tensor, references: Tensor, images: Tensor, texts: Tensor, compose: Compose) -> Tensor:
    """Unit queries (Q, d) in fp32 from rows (Q,) of the text and the image table, composed in chunks."""
    chunks = zip(captions.split(QUERIES_AT_ONCE), references.split(QUERIES_AT_ONCE), strict=True)
    return torch.cat(
        [compose(texts.index_select(0, text), images.index_select(0, image)).float() for text, image in chunks]
    )


def index_set(
    part: QuerySet, protocol: Protocol, images: FeatureTable, texts: FeatureTable, caption_of: Callable[[Triplet], str]
) -> IndexedSet:
    """Looks up the rows of a set whose triplets have targets."""
    device = images.values.device
    row = {name: number for number, name in enumerate(part.gallery)}
    targets = torch.tensor([row[triplet.target] for triplet in part.triplets if triplet.target is not None])
    excluded = members = None
    if protocol.exclude_reference:
        excluded = torch.tensor([row.get(triplet.reference, PAD_INDEX) for triplet in part.triplets]).to(device)
    if protocol.subset_recall_at:
        widest = max(len(triplet.members) for triplet in part.triplets)
        members = torch.full((len(part.triplets), widest), PAD_INDEX)
        for number, triplet in enumerate(part.triplets):
            own = [row[name] for name in triplet.members if name in row]
            members[number, : len(own)] = torch.tensor(own, dtype=torch.int64)
        members = members.to(device)
    return IndexedSet(
        images.index(part.gallery),
        images.index([triplet.reference for triplet in part.triplets]),
        texts.index([caption_of(triplet) for triplet in part.triplets]),
        targets.to(device),
        excluded,
        members,
    )
