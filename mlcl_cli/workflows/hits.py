"""What a search finds: rows of a catalog with their fields, and how each part of the query scored them."""

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal

import numpy as np
from torch import Tensor

from mlcl_cli.stores.scan import vectors_of
from mlcl_cli.stores.searching import fetch_rows
from mlcl_cli.stores.store import FIELD_PREFIX, ID, IMAGE, PRODUCT, THUMBNAIL, VECTOR, Found, Store
from mlcl_cli.workflows.retriever import Hit


def as_json(hit: Hit) -> dict[str, object]:
    """What `mlcl search --json` prints of a hit."""
    found: dict[str, object] = {"id": hit.id, "score": hit.score, "image": hit.image, "product": hit.product}
    found["fields"] = {name: plain(value) for name, value in hit.fields.items()}
    return found if hit.levels is None else {**found, "levels": dict(hit.levels)}


def plain(value: object) -> object:
    """A field's value in JSON's types: dates in ISO format, null for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def hits_of(
    store: Store, found: Sequence[Sequence[Found]], parts: Sequence[Mapping[str, Tensor]] | None
) -> list[list[Hit]]:
    """The hits of each query, without rows that have been deleted since; `parts` are its parts' unit vectors (d,)."""
    names = store.info.fields.names
    columns = [ID, PRODUCT, IMAGE, THUMBNAIL, *(FIELD_PREFIX + name for name in names)]
    ids = list(dict.fromkeys(one.id for own in found for one in own))
    table = fetch_rows(store, ids, columns if parts is None else [*columns, VECTOR]).combine_chunks()
    rows = {identifier: row for row, identifier in enumerate(table[ID].to_pylist())}
    values = table.select(columns).to_pylist()
    vectors = (
        None if parts is None or not len(table) else np.concatenate([vectors_of(batch) for batch in table.to_batches()])
    )

    def hit(one: Found, query: int) -> Hit:
        row = rows[one.id]
        value = values[row]
        levels = None
        if parts is not None and vectors is not None:
            levels = {key: float(vectors[row] @ part.cpu().numpy()) for key, part in parts[query].items()}
        fields = {name: value[FIELD_PREFIX + name] for name in names}
        return Hit(one.id, one.score, value[IMAGE], fields, levels, value[PRODUCT], value[THUMBNAIL] or b"")

    return [[hit(one, query) for one in own if one.id in rows] for query, own in enumerate(found)]
