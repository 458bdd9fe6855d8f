"""How a catalog is searched: exactly while that is fast, else by the store's approximate index."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from mlcl_cli.errors import MlclError, NotFiniteError, UsageError, is_out_of_memory
from mlcl_cli.progress import NOTICE
from mlcl_cli.stores.comparisons import group_column, stored
from mlcl_cli.stores.conditions import Condition, Conditions, Value
from mlcl_cli.stores.store import ID, Found, Store, Vectors

if TYPE_CHECKING:
    from mlcl_cli.stores.exact import ExactRows

logger = logging.getLogger(__name__)

SearchMode = Literal["auto", "exact", "index"]
MAX_EXACT_ON_CPU = 150_000  # rows; 28 ms per 100,000 on one core (measured)
MAX_ROWS_WITHOUT_INDEX = 10_000  # that a database scans in some milliseconds
_ROWS_A_GROUP = 4  # that the index is asked for at first, and how many times as many from one time to the next
_MOST_ROWS = 4_096  # that it is asked for, before groups that were found are left out instead
_GPU_SHARE = 0.8  # of a GPU's free memory that vectors may take
_INDEX_REMEDY = "Run mlcl index again with catalog.search: index"


def wants_index(mode: SearchMode, rows: int, dimension: int, gpu_memory: int | None) -> bool:
    """Whether a table is searched by its index, and so needs one. `gpu_memory` is in bytes, None on a CPU."""
    if mode != "auto":
        return mode == "index"
    return rows > MAX_EXACT_ON_CPU and not fits(rows, dimension, gpu_memory)


def gpu_memory(device: str) -> int | None:
    """The bytes of memory that are free on a CUDA device for this process; None for the CPU."""
    if device == "cpu":
        return None
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def fits(rows: int, dimension: int, gpu_memory: int | None) -> bool:
    """Whether a GPU holds so many vectors in fp16 for exact search."""
    return gpu_memory is not None and 2 * rows * dimension <= _GPU_SHARE * gpu_memory


@dataclass(frozen=True, slots=True)
class How:
    """How a table is searched: exactly on a `device`, or by an index, whose recall@10 in [0, 1] was measured."""

    method: Literal["exact", "index"]
    rows: int
    device: str | None = None
    recall: float | None = None

    def __str__(self) -> str:
        if self.method == "exact":
            return f"exact search of {self.rows:,} rows on {self.device}"
        return f"index of {self.rows:,} rows" + (f", recall@10 {self.recall:.3f}" if self.recall is not None else "")


@dataclass(frozen=True, slots=True)
class _Way:
    """How a version of the table is searched; `exact` is None where the store does it."""

    version: str
    how: How
    exact: "ExactRows | None"


@dataclass(eq=False)
class Searcher:
    """Searches a table, from any number of threads, as it is at that moment.

    `cache` is a folder of the catalog's own, for the copy of the rows that exact search reads; `device` is "cpu" or a
    CUDA device. The first search, and the first after the table has changed, may have to make the copy: a second per
    100,000 rows.
    """

    store: Store
    mode: SearchMode
    cache: Path
    device: str = "cpu"
    in_background: bool = False
    _is_updating: bool = field(default=False, init=False, repr=False)
    _way: _Way | None = field(default=None, init=False, repr=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    @property
    def how(self) -> How:
        """How the table is searched as it is now. Raises UsageError if the mode is "index" and there is none."""
        return self._current().how

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
        value stand for themselves. Raises UsageError for a field that does not exist, and what `how` raises, and
        NotFiniteError for queries that are not finite.
        """
        if not np.isfinite(queries).all():
            raise NotFiniteError("the query's features are not finite", remedy="Use another checkpoint")
        way = self._current()
        if way.exact is not None:
            return way.exact.search(queries, k, conditions, exclude, group_by)
        if group_by is None and not any(exclude):
            return self.store.search(queries, k, conditions)
        each = exclude or [()] * len(queries)
        return [
            self._search_by_index(query, k, conditions, frozenset(ids), group_by)
            for query, ids in zip(queries, each, strict=True)
        ]

    def _current(self) -> _Way:
        with self._lock:
            version, way = self.store.version, self._way
            if way is not None and way.version == version:
                return way
            if way is not None and self.in_background:
                if not self._is_updating:
                    self._is_updating = True
                    Thread(target=self._update, args=(version,), name="update catalog", daemon=True).start()
                return way
            self._way = None  # its memory may be needed
            self._way = way = self._choose(version)
            return way

    def _update(self, version: str) -> None:
        try:
            way = self._choose(version)
            with self._lock:
                self._way = way
        except MlclError as error:
            logger.warning(f"Searches do not see the catalog's last changes: {error}")
        finally:
            self._is_updating = False

    def _choose(self, version: str) -> _Way:
        info, rows, index = self.store.info, self.store.count(), self.store.index
        memory = gpu_memory(self.device)
        if fits(rows, info.dimension, memory) and not wants_index(self.mode, rows, info.dimension, memory):
            if (exact := self._on_gpu()) is not None:
                return _Way(version, How("exact", rows, self.device), exact)
            memory = None  # another process has taken it meanwhile
        if wants_index(self.mode, rows, info.dimension, memory):
            if index is not None or (self.mode == "index" and rows <= MAX_ROWS_WITHOUT_INDEX):
                return _Way(version, How("index", rows, recall=index.recall if index is not None else None), None)
            if self.mode == "index":
                what = f"the catalog has {rows:,} rows and no index"
                remedy = f"{_INDEX_REMEDY}, or search with catalog.search: auto"
                raise UsageError(what, where="catalog.search: index", remedy=remedy)
            logger.log(NOTICE, f"Searching {rows:,} rows without an index is slow. {_INDEX_REMEDY}")
        return _Way(version, How("exact", rows, "cpu"), self._on_cpu())

    def _on_cpu(self) -> "ExactRows":
        import torch

        from mlcl_cli.stores.copies import open_copy
        from mlcl_cli.stores.exact import ExactRows

        fields = self.store.info.fields
        return ExactRows(open_copy(self.store, self.cache, "fp32"), fields, torch.device("cpu"), torch.float32)

    def _on_gpu(self) -> "ExactRows | None":
        """None if the rows do not fit."""
        import torch

        from mlcl_cli.stores.copies import open_copy
        from mlcl_cli.stores.exact import ExactRows

        info, device = self.store.info, torch.device(self.device)
        try:
            return ExactRows(open_copy(self.store, self.cache, info.precision), info.fields, device, torch.float16)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _search_by_index(
        self, query: Vectors, k: int, conditions: Conditions, excluded: frozenset[str], group_by: str | None
    ) -> list[Found]:
        """Ask for more rows until they hold `k` groups, or there are no more."""
        conditions, groups = [*conditions], _Groups(self.store, group_by)
        wanted = k * (1 if group_by is None else _ROWS_A_GROUP) + len(excluded)
        while True:
            (found,) = self.store.search(query[None], wanted, conditions)
            groups.add([row for row in found if row.id not in excluded])
            best = groups.best()
            if len(best) >= k or len(found) < wanted:
                return best[:k]
            if wanted < _MOST_ROWS:
                wanted *= _ROWS_A_GROUP
            else:
                conditions += groups.others()


@dataclass
class _Groups:
    """Rows that were found, and the value of the field `name` of each; without a field, each is on its own."""

    store: Store
    name: str | None
    _found: dict[str, Found] = field(default_factory=dict)
    _values: dict[str, Value] = field(default_factory=dict)
    _left_out: set[Value] = field(default_factory=set)

    def add(self, found: Sequence[Found]) -> None:
        """Take further rows; those that are known already do no harm."""
        further = [row for row in found if row.id not in self._found]
        self._found |= {row.id: row for row in further}
        if self.name is not None and further:
            column = group_column(self.name, self.store.info.fields).name
            rows = fetch_rows(self.store, [row.id for row in further], [column])
            rows = rows.filter(stored(rows[column]).is_valid())
            self._values |= zip(rows[ID].to_pylist(), rows[column].to_pylist(), strict=True)

    def best(self) -> list[Found]:
        """The best row of each group, best first."""
        seen: set[Value] = set()
        best = []
        for row in sorted(self._found.values(), key=lambda row: -row.score):
            value = self._values.get(row.id)
            if value is None or value not in seen:
                best.append(row)
            if value is not None:
                seen.add(value)
        return best

    def others(self) -> list[Condition]:
        """Conditions that rows of further groups satisfy, but for those that earlier calls returned."""
        assert self.name is not None
        further = set(self._values.values()) - self._left_out
        self._left_out |= further
        return [Condition(self.name, "!=", value) for value in further]


def fetch_rows(store: Store, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """The `id` and the `columns` of rows, in the order of `ids`; without those that have been deleted since."""
    names = [ID, *(name for name in columns if name != ID)]
    schema = store.info.schema()
    table = pa.Table.from_batches(store.fetch(names, ids=ids), pa.schema([schema.field(name) for name in names]))
    places = {id_: place for place, id_ in enumerate(table[ID].to_pylist())}
    return table.take(pa.array([places[id_] for id_ in ids if id_ in places], pa.int64()))
