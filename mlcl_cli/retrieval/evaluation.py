"""How all data sets, stages and commands query: compose, rank the gallery, then compute metrics or list images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mlcl_cli.data.protocols import Protocol, summarize
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.models.combiner import Combiner, InferenceWeights, Level
from mlcl_cli.retrieval.ranking import PAD_INDEX, Ranks, TopRows, rank_targets, top_k

Compose = Callable[[Tensor, Tensor], Tensor]  # raw text and image features (B, d) → unit queries (B, d)
Advance = Callable[[int], object]
COMPOSED_AT_ONCE = 512
# By query set and metric, each query's value in [0, 1], float64 (Q,); NaN where the metric leaves the query out.
QueryValues = Mapping[str, Mapping[str, Tensor]]


def sum_query(text: Tensor, image: Tensor) -> Tensor:
    """The baseline without a combiner: n(f_ref + f_txt) (METHOD.md, Equation 17)."""
    return normalize(image + text, dim=-1)


def image_query(text: Tensor, image: Tensor) -> Tensor:  # noqa: ARG001
    """The reference alone: n(f_ref)."""
    return normalize(image, dim=-1)


def text_query(text: Tensor, image: Tensor) -> Tensor:  # noqa: ARG001
    """The modifier alone: n(f_txt)."""
    return normalize(text, dim=-1)


def weighted_query(text_weight: float) -> Compose:
    """The weighted mean of the unit features, with that weight in [0, 1] for the text (METHOD.md, Equation 22)."""
    return lambda text, image: normalize(
        text_weight * normalize(text, dim=-1) + (1 - text_weight) * normalize(image, dim=-1), dim=-1
    )


def product_query(text: Tensor, image: Tensor) -> Tensor:
    """The element-wise product of the unit features (METHOD.md, Equation 23)."""
    return normalize(normalize(text, dim=-1) * normalize(image, dim=-1), dim=-1)


def combiner_query(combiner: Combiner, weights: InferenceWeights) -> Compose:
    """The combiner's query (METHOD.md, Equations 15 and 16). Call in eval mode."""
    return lambda text, image: combiner.queries(text, image, weights)


def level_query(combiner: Combiner, level: Level) -> Compose:
    """One level of the combiner alone (METHOD.md, Equations 7–9), as a unit query. Call in eval mode."""
    return lambda text, image: normalize(combiner.query_parts(text, image)[level], dim=-1)


@dataclass(frozen=True)
class Figures:
    """Metrics in percent, and how many queries and gallery images they are over, by query set."""

    metrics: dict[str, float]
    queries: dict[str, int]
    gallery: dict[str, int]


@dataclass(frozen=True)
class GalleryRows:
    """A query set as int64 rows of its gallery, on the device: what `rank_targets` takes.

    `targets` is None in a test split.
    """

    targets: Tensor | None
    excluded: Tensor | None
    members: Tensor | None


@dataclass(frozen=True)
class IndexedSet:
    """A query set as int64 rows on the device.

    `gallery` (G,) and `references` (Q,) are rows of the image table, `captions` (Q,) of the text table.
    """

    gallery: Tensor
    references: Tensor
    captions: Tensor
    judged: GalleryRows


@dataclass(frozen=True)
class ComposedSet:
    """A query set with its unit queries (Q, d) and its gallery's unit features (G, d), both fp32."""

    part: QuerySet
    rows: GalleryRows
    queries: Tensor
    gallery: Tensor

    def rank(self, advance: Advance = lambda _: None) -> Ranks:
        """The ranks of the targets, in the order of the triplets. Raises NotFiniteError as `rank_targets` does."""
        rows = self.rows
        assert rows.targets is not None
        return rank_targets(
            self.queries, self.gallery, rows.targets, excluded=rows.excluded, members=rows.members, advance=advance
        )

    def top(self, k: int, *, selected: Tensor | None = None, among_members: bool = False) -> TopRows:
        """The `k` best gallery rows of each query, or of those `selected`, as `top_k` gives them."""
        members = self.rows.members if among_members else None
        return top_k(self.queries, self.gallery, k, selected=selected, excluded=self.rows.excluded, members=members)


class Evaluation:
    """A split under a protocol (METHOD.md, Section 8.2), for any number of features and queries.

    The names are looked up once: a validation after every epoch is gathers and products.
    """

    def __init__(self, split: Split, protocol: Protocol) -> None:
        self.split, self.protocol = split, protocol
        self._rows: tuple[Mapping[str, int], Mapping[str, int]] = ({}, {})
        self._sets: list[IndexedSet] = []

    def __call__(
        self, images: FeatureTable, texts: FeatureTable, compose: Compose, advance: Advance = lambda _: None
    ) -> Figures:
        """Rank every query and compute the protocol's metrics; `advance` is called as by `rank_targets`.

        Raises NotFiniteError where a score would not be finite.
        """
        return self.figures(self.ranks(images, texts, compose, advance))

    def figures(self, ranks: Mapping[str, Ranks]) -> Figures:
        """The protocol's metrics from the ranks of each query set."""
        return Figures(
            summarize(self.protocol, means_of(self.values(ranks))),
            {part.name: len(part.triplets) for part in self.split.sets},
            {part.name: len(part.gallery) for part in self.split.sets},
        )

    def values(self, ranks: Mapping[str, Ranks]) -> QueryValues:
        """Each query's own value of each metric, of which the protocol's metrics are means."""
        return {part.name: self._values(part, ranks[part.name]) for part in self.split.sets}

    def _values(self, part: QuerySet, ranks: Ranks) -> dict[str, Tensor]:
        protocol = self.protocol
        values = ranks.hits(protocol.recall_at, protocol.subset_recall_at, any_target=protocol.any_target)
        values |= {f"map@{k}": ranks.average_precisions(k) for k in protocol.map_at}
        if (k := protocol.aspect_map_at) is not None:
            precisions = ranks.average_precisions(k)
            for aspect in sorted({aspect for triplet in part.triplets for aspect in triplet.aspects}):
                rows = torch.tensor([aspect in triplet.aspects for triplet in part.triplets])
                values[f"map@{k}/{aspect}"] = torch.where(rows, precisions, torch.nan)
        return values

    def ranks(
        self, images: FeatureTable, texts: FeatureTable, compose: Compose, advance: Advance = lambda _: None
    ) -> dict[str, Ranks]:
        """The targets' ranks of each query set, in the order of its triplets. Raises as a call does."""
        return {queries.part.name: queries.rank(advance) for queries in self.compose(images, texts, compose)}

    @torch.no_grad()
    def compose(self, images: FeatureTable, texts: FeatureTable, compose: Compose) -> Iterator[ComposedSet]:
        """The query sets, one at a time, with unit queries and galleries (METHOD.md, Equation 18)."""
        if (images.rows, texts.rows) != self._rows:
            self._rows = (images.rows, texts.rows)
            self._sets = [self._index(part, images, texts) for part in self.split.sets]
        for part, rows in zip(self.split.sets, self._sets, strict=True):
            gallery = normalize(images.values.index_select(0, rows.gallery), dim=-1)
            chunks = zip(rows.captions.split(COMPOSED_AT_ONCE), rows.references.split(COMPOSED_AT_ONCE), strict=True)
            queries = [
                compose(texts.values.index_select(0, captions), images.values.index_select(0, references)).float()
                for captions, references in chunks
            ]
            yield ComposedSet(part, rows.judged, torch.cat(queries), gallery)

    def given(self, images: FeatureTable, queries: FeatureTable) -> Iterator[ComposedSet]:
        """The query sets with features of another model, as they are: images by name, queries by query id."""
        for part in self.split.sets:
            features = queries.of([triplet.query_id for triplet in part.triplets]), images.of(part.gallery)
            yield ComposedSet(part, self._gallery_rows(part, images.values.device), *features)

    def _index(self, part: QuerySet, images: FeatureTable, texts: FeatureTable) -> IndexedSet:
        return IndexedSet(
            gallery=images.index(part.gallery),
            references=images.index([triplet.reference for triplet in part.triplets]),
            captions=texts.index([triplet.query_text for triplet in part.triplets]),
            judged=self._gallery_rows(part, images.values.device),
        )

    def _gallery_rows(self, part: QuerySet, device: torch.device) -> GalleryRows:
        row = {name: number for number, name in enumerate(part.gallery)}
        targets = [[row[name] for name in counted_targets(triplet, self.protocol)] for triplet in part.triplets]
        excluded = members = None
        if self.protocol.exclude_reference:
            excluded = torch.tensor([row.get(triplet.reference, PAD_INDEX) for triplet in part.triplets]).to(device)
        if self.protocol.subset_recall_at:
            present = [[row[name] for name in triplet.members if name in row] for triplet in part.triplets]
            members = _padded(present).to(device)
        return GalleryRows(
            targets=_padded(targets).to(device) if all(targets) else None,
            excluded=excluded,
            members=members,
        )


def means_of(values: QueryValues) -> dict[str, dict[str, float]]:
    """The mean of each metric over the queries that it counts, in percent, by query set."""
    return {
        name: {key: float(column.nanmean()) * 100 for key, column in columns.items()}
        for name, columns in values.items()
    }


def counted_targets(triplet: Triplet, protocol: Protocol) -> tuple[str, ...]:
    """The targets that the protocol counts: all of them, or the first."""
    return triplet.targets() if protocol.any_target or protocol.map_at else triplet.targets()[:1]


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of unequal lengths as one int64 matrix, filled up with PAD_INDEX."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[PAD_INDEX] * (width - len(row))] for row in rows], dtype=torch.int64)
