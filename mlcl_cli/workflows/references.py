"""Items of a catalog as the references of queries."""

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from mlcl_cli.errors import UsageError
from mlcl_cli.stores.conditions import Condition
from mlcl_cli.stores.scan import vectors_of
from mlcl_cli.stores.searching import fetch_rows
from mlcl_cli.stores.store import ID, NORM, POSITION, PRODUCT, VECTOR, Store
from mlcl_cli.suggestions import did_you_mean, shown

MAX_COMPARED = 20_000  # ids that a suggestion is looked for in


class Item(NamedTuple):
    """A catalog's item as a reference: its raw feature (d,), and the product that it belongs to."""

    feature: Tensor
    product: str


class UnknownItemError(UsageError):
    """The catalog has no such item."""

    def __init__(self, item: str, suggestion: str = "") -> None:
        self.item = item
        super().__init__(f"the catalog has no item {shown(item)}{suggestion}", where="item")


def find_item(store: Store, item: str) -> Item:
    """The item with an id, or the first image of a product. Raises UnknownItemError if there is none."""
    row = fetch_item(store, item, [PRODUCT, NORM, VECTOR])
    vector = torch.from_numpy(vectors_of(row.to_batches()[0])[0])
    return Item(vector * row[NORM][0].as_py(), row[PRODUCT][0].as_py())


def fetch_item(store: Store, item: str, columns: Sequence[str]) -> pa.Table:
    """The `columns` of the item's row. Raises UnknownItemError if there is none."""
    row = fetch_rows(store, [item], columns)
    return row if len(row) else fetch_rows(store, [_first_image(store, item)], columns)


def _first_image(store: Store, product: str) -> str:
    """The id of a product's first image. Raises UnknownItemError if there is no such product."""
    images = store.fetch([POSITION, ID], conditions=(Condition(PRODUCT, "=", product),))
    found = [(row[POSITION], str(row[ID])) for batch in images for row in batch.to_pylist()]
    if not found:
        raise UnknownItemError(product)
    return min(found)[1]


def suggest_item(store: Store, item: str) -> str:
    """The end of a message that suggests the nearest id, or nothing; it takes a second in a large catalog."""
    return did_you_mean(item, _ids(store, len(item)))


def _ids(store: Store, length: int) -> list[str]:
    """Some ids of about that length."""
    ids: list[str] = []
    for batch in store.fetch([ID]):
        ids += [one for one in batch.column(ID).to_pylist() if abs(len(one) - length) <= 2]
        if len(ids) > MAX_COMPARED:
            break
    return ids[:MAX_COMPARED]
