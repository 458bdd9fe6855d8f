"""A catalog's table as a plain dictionary, which real stores are compared with, and rows to fill both with."""

import operator
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from mlcl_cli.stores.conditions import Condition, Conditions, Operator
from mlcl_cli.stores.open import open_catalog
from mlcl_cli.stores.store import FIELD_PREFIX, Catalog, Store, TableInfo, Vectors

Row = dict[str, object]
PROCESSES = 3
AtOnce = Callable[..., list[Future[object]]]  # the fixture `at_once`
DIMENSION = 8
# A field of each type that a condition can compare; the names are what people call their columns.
FIELDS = pa.schema(
    {
        "category": pa.string(),
        'it\'s "odd" — größe.x[0] `y` \\ %': pa.string(),
        "stock": pa.int64(),
        "price": pa.float64(),
        "select": pa.bool_(),
        "Sold on": pa.date32(),
        "seen": pa.timestamp("us"),
        "id": pa.int32(),
    }
)
INFO = TableInfo("e0", "clip", DIMENSION, "fp16", FIELDS)
COMPARE: dict[Operator, Callable[[object, object], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda value, values: value in values,  # type: ignore[operator]
}


@dataclass(frozen=True)
class Place:
    """Where a catalog is, for another process to open."""

    address: str
    folder: Path
    name: str

    def open(self) -> Catalog:
        return open_catalog(self.address, self.folder, self.name)


def meet_and_work(number: int, folder: Path, work: Callable[..., object], arguments: tuple[object, ...]) -> object:
    """Call `work` once all PROCESSES have come so far: each makes a file."""
    (folder / str(number)).touch()
    while len(list(folder.iterdir())) < PROCESSES:
        time.sleep(0.001)
    return work(number, *arguments)


@dataclass
class Oracle:
    """A table as a dictionary from id to row."""

    rows: dict[str, Row] = field(default_factory=dict)

    def upsert(self, rows: Sequence[Row]) -> None:
        self.rows |= {str(row["id"]): row for row in rows}

    def delete(self, ids: Sequence[str]) -> None:
        for id_ in ids:
            self.rows.pop(id_, None)

    def matching(self, conditions: Conditions = ()) -> list[Row]:
        return [row for row in self.rows.values() if all(holds(row, condition) for condition in conditions)]

    def search(self, query: Vectors, k: int, conditions: Conditions = ()) -> list[tuple[str, float]]:
        """Ids and scores, best first; equal scores in the order of positions."""
        rows = self.matching(conditions)
        scores = [float(np.asarray(row["vector"], np.float64) @ query.astype(np.float64)) for row in rows]
        order = sorted(range(len(rows)), key=lambda index: (-scores[index], rows[index]["position"]))
        return [(str(rows[index]["id"]), scores[index]) for index in order[:k]]


def holds(row: Row, condition: Condition) -> bool:
    """Whether a row satisfies a condition, by Python's own comparisons."""
    value = row.get(FIELD_PREFIX + condition.field)
    return value is not None and COMPARE[condition.operator](value, condition.value)


def as_table(rows: Sequence[Row], info: TableInfo = INFO) -> pa.Table:
    """Rows as a store takes them."""
    return pa.Table.from_pylist(list(rows), schema=info.schema())


def contents(store: Store) -> dict[str, Row]:
    """All rows of a store by id; an id must not come twice."""
    rows = [row for batch in store.fetch(store.info.schema().names) for row in batch.to_pylist()]
    found = {str(row["id"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def plain_row(number: int, vector: Sequence[float], info: TableInfo = INFO, **fields: object) -> Row:
    """A row with missing fields but for those given, whose id and position follow from its number."""
    missing = {FIELD_PREFIX + name: None for name in info.fields.names}
    own: Row = {
        "id": f"id {number}",
        "product": f"p{number // 2}",
        "image": f"images/{number}.jpg",
        "position": number,
        "norm": 1.5,
        "thumbnail": bytes([number % 256]),
        "image_fingerprint": f"i{number}",
        "fields_fingerprint": f"f{number}",
        "vector": [float(value) for value in vector],
    }
    return own | missing | {FIELD_PREFIX + name: value for name, value in fields.items()}


def unit_vectors(rows: int, dimension: int, seed: int) -> Vectors:
    """Clustered unit vectors (rows, dimension), as fp16 stores them."""
    draw = np.random.default_rng(seed)
    centers = draw.normal(size=(max(rows // 100, 1), dimension))
    vectors = centers[draw.integers(len(centers), size=rows)] + 0.7 * draw.normal(size=(rows, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float16).astype(np.float32)


def with_field(name: str, type_: pa.DataType, info: TableInfo = INFO) -> TableInfo:
    """`info` with one field more."""
    return replace(info, fields=info.fields.append(pa.field(name, type_)))


# Strings that a query language could take for its own, beside any other.
words = st.sampled_from(
    ["boots", "Boots", "o'neill", '"quoted"', "a\\b", "50%", "null", "größe 🥾", " ", "", "x\ny", "a,b", "{t}", "1"]
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
days = st.integers(-3, 3).map(lambda day: date(2024, 2, 28) + timedelta(days=day))
moments = st.integers(-3, 3).map(lambda step: datetime(2024, 2, 28, 23, 59) + timedelta(seconds=30.5 * step))
values: dict[pa.DataType, st.SearchStrategy[object]] = {
    pa.string(): words,
    pa.int64(): st.integers(-3, 3) | st.sampled_from([2**53 + 1, 2**62, -(2**62)]),
    pa.int32(): st.integers(-3, 3),
    pa.float64(): st.sampled_from([-1.5, 0.0, 0.1, 79.99, 80.0, 1e-9, 1e300]),
    pa.bool_(): st.booleans(),
    pa.date32(): days,
    pa.timestamp("us"): moments,
}
# Unit vectors whose products are exact in any arithmetic, so that many scores are equal.
halves = st.tuples(*[st.sampled_from([-0.5, 0.5])] * 4)
exact_vectors = st.builds(
    lambda half, first: [*half, 0.0, 0.0, 0.0, 0.0] if first else [0.0, 0.0, *half, 0.0, 0.0], halves, st.booleans()
)


@st.composite
def rows(draw: st.DrawFn, max_size: int = 30) -> list[Row]:
    """Rows with distinct positions, whose ids repeat now and then; any field may be missing."""
    made = []
    for number in draw(st.lists(st.integers(0, 200), unique=True, max_size=max_size)):
        fields = {item.name: draw(st.none() | values[item.type]) for item in FIELDS}
        own = plain_row(number, draw(exact_vectors), **fields)
        made.append(own | {"id": draw(st.just(own["id"]) | words.filter(bool))})
    return made


@st.composite
def condition(draw: st.DrawFn) -> Condition:
    """A comparison of any field with a value of its type, or of a number of another type."""
    item = draw(st.sampled_from(list(FIELDS)))
    value = values[item.type]
    if item.type == pa.bool_():
        operators: tuple[Operator, ...] = ("=", "!=", "in")
    else:
        operators = ("=", "!=", "<", "<=", ">", ">=", "in")
    chosen = draw(st.sampled_from(operators))
    if chosen == "in":
        return Condition(item.name, chosen, tuple(draw(st.lists(value, min_size=1, max_size=4))))
    if pa.types.is_integer(item.type):
        value |= st.sampled_from([0.5, -1.5, 2.0])
    elif pa.types.is_floating(item.type):
        value |= st.integers(-1, 80)
    return Condition(item.name, chosen, draw(value))


conditions = st.lists(condition(), max_size=3)
