"""A catalog to browse: its items in order, and what its fields hold."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from mlcl_cli.stores.comparisons import stored
from mlcl_cli.stores.conditions import Conditions, is_text
from mlcl_cli.stores.store import FIELD_PREFIX, ID, POSITION, PRODUCT, Found, Store
from mlcl_cli.workflows.hits import hits_of, plain
from mlcl_cli.workflows.retriever import Hit

Kind = Literal["text", "number", "boolean", "date", "other"]
MAX_VALUES = 30  # of a field that is chosen from a list
KEPT = 8  # orders of ids


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """What a field holds: its `values` if there are few, from the most frequent on, and its range if it has one."""

    name: str
    kind: Kind
    values: Sequence[object] | None
    least: object = None
    greatest: object = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some items of `total` that satisfy the conditions."""

    items: Sequence[Hit]
    total: int


@dataclass(eq=False)
class Listing:
    """The items of a table in the order of the catalog, from any number of threads."""

    store: Store
    _orders: "OrderedDict[tuple[str, Conditions, bool], pa.ChunkedArray]" = field(
        default_factory=OrderedDict, init=False
    )
    _fields: tuple[str, Sequence[FieldSummary]] | None = field(default=None, init=False)
    _has_groups: tuple[str, bool] | None = field(default=None, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def page(self, conditions: Conditions, start: int, count: int, *, by_product: bool = False) -> Page:
        """`count` items from number `start` on; `by_product`, the first of each product.

        Raises UsageError for a condition on an unknown field.
        """
        ids = self._order(conditions, by_product)
        found = [Found(str(identifier), 0.0) for identifier in ids[start : start + count]]
        return Page(hits_of(self.store, [found], None)[0], len(ids))

    def fields(self) -> Sequence[FieldSummary]:
        """What the fields hold, in the order of the catalog's columns."""
        with self._lock:
            version = self.store.version
            if self._fields is None or self._fields[0] != version:
                names = self.store.info.fields.names
                self._fields = version, [self._summarize(name) for name in names]
            return self._fields[1]

    def has_groups(self) -> bool:
        """Whether a product has several images."""
        with self._lock:
            version = self.store.version
            if self._has_groups is None or self._has_groups[0] != version:
                products = self._columns([PRODUCT])[PRODUCT]
                self._has_groups = version, pc.count_distinct(products).as_py() < len(products)
            return self._has_groups[1]

    def _order(self, conditions: Conditions, by_product: bool) -> pa.ChunkedArray:
        with self._lock:
            key = self.store.version, tuple(conditions), by_product
            if key not in self._orders:
                rows = self._columns([ID, POSITION, *([PRODUCT] if by_product else [])], conditions)
                rows = rows.take(np.argsort(rows[POSITION].to_numpy(), kind="stable"))
                if by_product:
                    places = rows.append_column("place", pa.array(np.arange(len(rows))))
                    first = places.group_by(PRODUCT).aggregate([("place", "min")])["place_min"].to_numpy()
                    rows = rows.take(np.sort(first))
                self._orders[key] = rows[ID]
                while len(self._orders) > KEPT:
                    self._orders.popitem(last=False)
            self._orders.move_to_end(key)
            return self._orders[key]

    def _columns(self, names: Sequence[str], conditions: Conditions = ()) -> pa.Table:
        schema = self.store.info.schema()
        batches = self.store.fetch(names, conditions=conditions)
        return pa.Table.from_batches(batches, pa.schema([schema.field(name) for name in names]))

    def _summarize(self, name: str) -> FieldSummary:
        type_ = self.store.info.fields.field(name).type
        kind = _kind(type_)
        if kind == "other":
            return FieldSummary(name, kind, None)
        column = self._columns([ID, FIELD_PREFIX + name])[FIELD_PREFIX + name]
        kept = column.filter(stored(column).is_valid())
        if types.is_dictionary(kept.type):
            kept = kept.cast(kept.type.value_type)
        counts = pc.value_counts(kept.combine_chunks())
        values = None
        if len(counts) <= MAX_VALUES:
            ranked = sorted(counts.to_pylist(), key=lambda entry: -entry["counts"])
            values = [plain(entry["values"]) for entry in ranked]
        if kind not in ("number", "date") or not len(kept):
            return FieldSummary(name, kind, values)
        ends = pc.min_max(kept).as_py()
        return FieldSummary(name, kind, values, plain(ends["min"]), plain(ends["max"]))


def _kind(type_: pa.DataType) -> Kind:
    if types.is_dictionary(type_):
        return _kind(type_.value_type)
    if is_text(type_):
        return "text"
    if types.is_boolean(type_):
        return "boolean"
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_):
        return "number"
    is_moment = types.is_date(type_) or (types.is_timestamp(type_) and type_.unit != "ns")
    return "date" if is_moment else "other"
