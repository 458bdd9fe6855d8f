"""The references of queries: images from outside of a catalog, and items in it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mlcl_cli.errors import UsageError
from mlcl_cli.stores.scan import vectors_of
from mlcl_cli.stores.searching import fetch_rows
from mlcl_cli.stores.store import ID, NORM, PRODUCT, VECTOR, Store
from mlcl_cli.suggestions import did_you_mean, shown
from mlcl_cli.workflows.retriever import Query, QueryImage

MAX_COMPARED = 50_000  # ids that a suggestion is looked for in


@dataclass(frozen=True)
class Reference:
    """A query's reference: an image, or the raw feature (d,) of an item with its product; None without a reference."""

    image: "QueryImage | Tensor | None"
    product: str | None = None


def find_reference(store: Store, query: Query) -> Reference:
    """The reference of a query. Raises UsageError for both an image and an item, and for an unknown item."""
    if query.item is None:
        return Reference(query.image)
    if query.image is not None:
        raise UsageError("an image and an item exclude each other", where="query", remedy="Give one of them")
    row = fetch_rows(store, [query.item], [PRODUCT, NORM, VECTOR])
    if not len(row):
        hint = did_you_mean(query.item, _ids(store, len(query.item)))
        raise UsageError(f"the catalog has no item {shown(query.item)}{hint}", where="item")
    vector = torch.from_numpy(vectors_of(row.to_batches()[0])[0])
    return Reference(vector * row[NORM][0].as_py(), row[PRODUCT][0].as_py())


def _ids(store: Store, length: int) -> list[str]:
    """Some ids of about that length."""
    ids: list[str] = []
    for batch in store.fetch([ID]):
        ids += [one for one in batch.column(ID).to_pylist() if abs(len(one) - length) <= 2]
        if len(ids) > MAX_COMPARED:
            break
    return ids[:MAX_COMPARED]
