"""A model and the catalog that it searches: from queries to hits."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from torch import Tensor

from mlcl_cli.config import Profile
from mlcl_cli.errors import DataError, UsageError
from mlcl_cli.progress import Progress
from mlcl_cli.stores.conditions import Condition, Conditions
from mlcl_cli.stores.open import open_catalog
from mlcl_cli.stores.searching import Searcher, fetch_rows
from mlcl_cli.stores.store import ID, PRODUCT, Catalog, Found, Store, Vectors
from mlcl_cli.stores.where import as_conditions
from mlcl_cli.workflows.catalog_model import load_catalog_model
from mlcl_cli.workflows.hits import hits_of
from mlcl_cli.workflows.index_rows import index_rows
from mlcl_cli.workflows.index_shard import Counts
from mlcl_cli.workflows.indexing import FOLDER, optimize_table
from mlcl_cli.workflows.query_features import PreparedQuery, raw_features, read_image
from mlcl_cli.workflows.references import UnknownItemError, fetch_item, find_item, suggest_item
from mlcl_cli.workflows.retrieval_model import RetrievalModel
from mlcl_cli.workflows.retriever import Hit, Query, QueryImage, Where
from mlcl_cli.workflows.run_context import RunContext


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How the catalog is searched: see `Retriever.search`. Raises UsageError for a `k` below 1."""

    conditions: Conditions = ()
    k: int = 10
    group_by: str | None = None
    explain: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"must be at least 1, not {self.k}", where="k")


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """A query's unit feature (d,), its parts' as `RawFeatures.parts` gives them, and its item's product."""

    unit: Vectors
    parts: Mapping[str, Tensor]
    product: str | None


@dataclass(frozen=True, eq=False)
class SearchEngine:
    """A model, and a catalog that was encoded with its CLIP. Many threads may use it at once."""

    context: RunContext
    model: RetrievalModel
    catalog: Catalog
    in_background: bool = False

    @classmethod
    def open(
        cls,
        profile: Profile,
        progress: Progress,
        combining_function: str | None = None,
        checkpoint: Path | None = None,
        *,
        needs_catalog: bool = True,
        in_background: bool = False,
    ) -> Self:
        """Load what a profile describes, as `Retriever.load` does; `in_background` is `Searcher`'s.

        Raises DataError if there is no catalog yet, unless it is not needed (`needs_catalog`).
        """
        catalog = open_catalog(profile.catalog.store, profile.workspace / FOLDER, profile.catalog.name)
        current = catalog.current()
        if current is None and needs_catalog:
            raise _no_catalog(catalog)
        context = RunContext.open(profile, progress, writes=False)
        info = None if current is None else current.info
        model = load_catalog_model(context, info, catalog.place, combining_function, checkpoint)
        return cls(context, model, catalog, in_background)

    def compose(
        self, images: "Sequence[QueryImage | None] | None" = None, texts: Sequence[str | None] | None = None
    ) -> Vectors:
        """Unit queries (B, d): `Retriever.compose`."""
        size = len(images if images is not None else texts or ())
        images = [None] * size if images is None else images
        texts = [None] * size if texts is None else texts
        if len(images) != len(texts):
            what = f"got {len(images)} images and {len(texts)} texts"
            raise UsageError(what, where="compose", remedy="Give one of each a query, with None for what is missing")
        if not size:
            return np.empty((0, self.model.store.encoder.feature_dim), np.float32)
        queries = [Query(text, image) for text, image in zip(texts, images, strict=True)]
        return np.stack([one.unit for one in self.encode(self._prepare_all(queries))])

    def search_many(
        self,
        queries: Sequence[Query],
        where: Where = None,
        *,
        k: int = 10,
        group_by: str | None = None,
        explain: bool = False,
    ) -> list[list[Hit]]:
        """The hits of each query: `Retriever.search_many`."""
        options = SearchOptions(self.conditions(where), k, group_by, explain)
        if not queries:
            return []
        return self.find(self.encode(self._prepare_all(queries)), queries, options)

    def prepare(self, query: Query) -> PreparedQuery:
        """Decode a query's image, or look up its item. Raises what `Retriever.search` does for a query."""
        if query.item is None:
            pixels = None if query.image is None else read_image(query.image, self.model.store)
            return PreparedQuery(query.text, pixels)
        if query.image is not None:
            raise UsageError("an image and an item exclude each other", where="query", remedy="Give one of them")
        item = find_item(self._searcher.store, query.item)
        return PreparedQuery(query.text, feature=item.feature, product=item.product)

    def _prepare_all(self, queries: Sequence[Query]) -> list[PreparedQuery]:
        """`prepare` for each of several queries, whose errors say which one it is."""
        prepared = []
        for row, query in enumerate(queries):
            try:
                prepared.append(self.prepare(query))
            except UnknownItemError as error:
                raise UnknownItemError(error.item, suggest_item(self._searcher.store, error.item)) from error
            except UsageError as error:
                if error.where != "query" or len(queries) == 1:
                    raise
                raise UsageError(error.what, where=f"query {row}", remedy=error.remedy) from error
        return prepared

    def encode(self, queries: Sequence[PreparedQuery]) -> list[EncodedQuery]:
        """Encode queries together."""
        raw = raw_features(self.model, queries)
        unit: Vectors = raw.query(self.model.compose).cpu().numpy()
        parts = raw.parts(self.model.parts)
        return [EncodedQuery(*values) for values in zip(unit, parts, (one.product for one in queries), strict=True)]

    def find(
        self, encoded: Sequence[EncodedQuery], queries: Sequence[Query], options: SearchOptions
    ) -> list[list[Hit]]:
        """The hits of each query that was encoded."""
        unit = np.stack([one.unit for one in encoded])
        found = self._found(unit, queries, [one.product for one in encoded], options)
        return hits_of(self._searcher.store, found, [one.parts for one in encoded] if options.explain else None)

    @property
    def store(self) -> Store:
        """The table that is searched. Raises DataError if there is no catalog yet."""
        return self._searcher.store

    def conditions(self, where: Where) -> Conditions:
        """What a filter says. Raises UsageError for one that is not valid, or names an unknown field."""
        return as_conditions(where, self._searcher.store.info.fields)

    def item(self, name: str) -> Hit:
        """An item of the catalog as if it were found, with score 1. Raises UsageError if there is none."""
        store = self._searcher.store
        identifier = fetch_item(store, name, [ID])[ID][0].as_py()
        return hits_of(store, [[Found(identifier, 1.0)]], None)[0][0]

    def index(self, rows: Iterable[Mapping[str, object]], types: pa.Schema | None = None) -> Counts:
        """Add rows to the catalog: `Retriever.index`. With `in_background`, `optimize` is left to the caller.

        `types` are those of fields, where their values alone do not tell.
        """
        profile, progress = self.context.profile, self.context.progress
        optimize = not self.in_background
        counts = index_rows(profile, progress, self.catalog, self.model, rows, optimize=optimize, types=types)
        if not self.in_background:
            vars(self).pop("_searcher", None)  # a new one sees the rows at once
        return counts

    def optimize(self) -> None:
        """Compact the table that is searched, and index it where searches want that."""
        optimize_table(self.store, self.context.profile.catalog.search, str(self.context.compute.device))

    def warm_up(self) -> None:
        """Encode and search once, so that the first query does not wait for what is made then."""
        self.search_many([Query("a")], k=1)

    def about(self) -> dict[str, object]:
        """Which weights query: the object `model` of `--json`."""
        model = self.model
        return {
            "combining_function": model.combining_function,
            "checkpoint": str(model.combiner.path) if model.combiner else None,
            "clip": str(model.clip.choice.checkpoint or model.clip.choice.model),
            "checkpoint_fingerprint": model.fingerprint if model.combiner else None,
            "clip_fingerprint": model.store.fingerprints.both,
            "text_weight": model.text_weight.value if model.text_weight else None,
        }

    @cached_property
    def _searcher(self) -> Searcher:
        current, profile = self.catalog.current(), self.context.profile
        if current is None:
            raise _no_catalog(self.catalog)
        cache = profile.workspace / FOLDER / f"{profile.catalog.name}.cache"
        device = str(self.context.compute.device)
        return Searcher(current, profile.catalog.search, cache, device, self.in_background)

    def _found(
        self, unit: Vectors, queries: Sequence[Query], products: Sequence[str | None], options: SearchOptions
    ) -> list[list[Found]]:
        """What the unit queries find. The references' other images are all hidden once one turns up, which is rare."""
        hidden = [{*query.exclude, *([query.item] if query.item else [])} for query in queries]
        while True:
            found = self._searcher.search(
                unit, options.k, options.conditions, exclude=hidden, group_by=options.group_by
            )
            own = [[one.id for one in rows] if product else [] for rows, product in zip(found, products, strict=True)]
            seen = list(dict.fromkeys(identifier for ids in own for identifier in ids))
            table = fetch_rows(self._searcher.store, seen, ["id", PRODUCT])
            product_of = dict(zip(table["id"].to_pylist(), table[PRODUCT].to_pylist(), strict=True))
            same = [
                {identifier for identifier in ids if product_of.get(identifier) == product}
                for ids, product in zip(own, products, strict=True)
            ]
            if not any(same):
                return found
            images = self._images_of({product for product, ids in zip(products, same, strict=True) if ids})
            hidden = [
                ids | own | images[product] if own else ids
                for ids, own, product in zip(hidden, same, products, strict=True)
            ]

    def _images_of(self, products: Collection[str | None]) -> dict[str | None, set[str]]:
        """The ids of each product's images."""
        conditions = (Condition(PRODUCT, "in", tuple(product for product in products if product is not None)),)
        images = defaultdict(set)
        for batch in self._searcher.store.fetch([ID, PRODUCT], conditions=conditions):
            for identifier, product in zip(batch[ID].to_pylist(), batch[PRODUCT].to_pylist(), strict=True):
                images[product].add(identifier)
        return images


def _no_catalog(catalog: Catalog) -> DataError:
    remedy = "Run `mlcl index` on a folder or a table of products first"
    return DataError("there is no catalog yet", where=catalog.place, remedy=remedy)
