"""How a catalog is searched: exactly while that is fast, else by the store's approximate index."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from mlcl_cli.stores.conditions import Conditions
from mlcl_cli.stores.store import Found, Store, Vectors

SearchMode = Literal["auto", "exact", "index"]
MAX_EXACT_ON_CPU = 150_000  # rows; 28 ms per 100,000 on one core (measured)


@dataclass(frozen=True, slots=True)
class How:
    """The kind of search that a table gets, and why, in words for a message."""

    method: Literal["exact", "index"]
    reason: str


@dataclass(frozen=True)
class Searcher:
    """Searches a table, from any number of threads.

    `cache` is a folder of the catalog's own, for the copy of the rows that exact search reads; `device` is "cpu" or a
    CUDA device.
    """

    store: Store
    mode: SearchMode
    cache: Path
    device: str = "cpu"

    @property
    def how(self) -> How:
        """How the table is searched as it is now. Raises UsageError if the mode is "index" and there is none."""
        return How("exact", "few rows")

    def search(
        self,
        queries: Vectors,
        k: int,
        conditions: Conditions = (),
        *,
        exclude: Sequence[Collection[str]] = (),
        group_by: str | None = None,
    ) -> list[list[Found]]:
        """The `k` best rows of each unit query (B, d), best first; equal scores in the order of `position`.

        `exclude` holds the ids that each query must not find, one collection a query; `()` excludes none. With
        `group_by` (a field, or "product"), only the best row of each of its values is found, `k` in all; rows without a
        value stand for themselves. Raises UsageError for a field that does not exist, and what `how` raises.
        """
        from mlcl_cli.stores.scan import COLUMNS, best_rows
        rows = best_rows(self.store.fetch(COLUMNS, conditions=conditions), queries, 100000)
        out = []
        for n, found in enumerate(rows):
            ex = set(exclude[n]) if exclude else set()
            found = [f for f in found if f.id not in ex]
            if group_by:
                col = "product" if group_by == "product" else "field." + group_by
                t = fetch_rows(self.store, [f.id for f in found], [col])
                seen, kept = set(), []
                for f, v in zip(found, t[col].to_pylist()):
                    if v is None or v not in seen:
                        kept.append(f); seen.add(v)
                found = kept
            out.append(found[:k])
        return out


def fetch_rows(store: Store, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """The `columns` of rows, in the order of `ids`; without those that have been deleted since."""
    cols = list(dict.fromkeys(["id", *columns]))
    rows = {r["id"]: r for b in store.fetch(cols, ids=list(ids)) for r in b.to_pylist()}
    schema = store.info.schema()
    return pa.Table.from_pylist([{c: rows[i][c] for c in columns} for i in ids if i in rows], schema=pa.schema([schema.field(c) for c in columns]))
