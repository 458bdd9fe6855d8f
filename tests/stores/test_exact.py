"""Exact search gives what sorting all scores gives, to the tie, whatever it computes them with."""

from collections.abc import Collection, Sequence

import numpy as np
import pytest
import store_oracle
import torch
from hypothesis import given
from hypothesis import strategies as st
from store_oracle import FIELDS, Oracle, Row, as_table, plain_row, unit_vectors

from mlcl_cli.errors import UsageError
from mlcl_cli.retrieval.ranking import top_k
from mlcl_cli.stores import exact
from mlcl_cli.stores.conditions import Condition, Conditions
from mlcl_cli.stores.copies import Copy
from mlcl_cli.stores.exact import ExactRows
from mlcl_cli.stores.store import FIELD_PREFIX, VECTOR, Found, Vectors

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
KINDS = {
    "fp32": ("cpu", torch.float32),
    "fp16": ("cpu", torch.float16),  # what a GPU computes
    "cuda": ("cuda", torch.float16),
}
kinds = pytest.mark.parametrize("kind", ["fp32", "fp16", pytest.param("cuda", marks=needs_gpu)])


def as_copy(rows: Sequence[Row], vectors: Vectors | None = None) -> Copy:
    table = as_table(rows)
    if vectors is None:
        vectors = np.float32([row["vector"] for row in rows]).reshape(len(rows), store_oracle.DIMENSION)
    return Copy(vectors, table.drop_columns([VECTOR]))


def searched(kind: str, copy: Copy) -> ExactRows:
    device, dtype = KINDS[kind]
    return ExactRows(copy, FIELDS, torch.device(device), dtype)


def best(
    rows: Sequence[Row], query: Vectors, k: int, excluded: Collection[str] = (), group_by: str | None = None
) -> list[str]:
    """The ids of the best of rows, by sorting all of them."""
    scores = [np.float32(np.float64(row["vector"]) @ np.float64(query)) for row in rows]
    order = sorted(range(len(rows)), key=lambda number: (-scores[number], rows[number]["position"]))
    found: dict[object, str] = {}
    for number in order:
        row = rows[number]
        if row["id"] in excluded:
            continue
        value = None if group_by is None else row.get(FIELD_PREFIX + group_by, row.get(group_by))
        found.setdefault(("alone", number) if value is None else value, str(row["id"]))
    return [*found.values()][:k]


def ids(found: Sequence[Sequence[Found]]) -> list[list[str]]:
    return [[row.id for row in of_query] for of_query in found]


@kinds
@given(
    made=store_oracle.rows(),
    queries=st.lists(store_oracle.exact_vectors, max_size=3),
    conditions=store_oracle.conditions,
    k=st.integers(0, 40),
    group_by=st.none() | st.sampled_from([*FIELDS.names, "product"]),
    data=st.data(),
)
def test_exact_search_is_sorting_all_scores(
    kind: str,
    made: list[Row],
    queries: list[list[float]],
    conditions: Conditions,
    k: int,
    group_by: str | None,
    data: st.DataObject,
) -> None:
    oracle = Oracle()
    oracle.upsert(made)
    rows = [*oracle.rows.values()]
    some_ids = st.sets(st.sampled_from([*oracle.rows, "nobody"]), max_size=4)
    exclude = data.draw(st.just(()) | st.tuples(*[some_ids for _ in queries]))
    asked = np.float32(queries).reshape(len(queries), store_oracle.DIMENSION)
    found = searched(kind, as_copy(rows)).search(asked, k, conditions, exclude, group_by)
    matching = oracle.matching(conditions)
    each = exclude or [()] * len(queries)
    assert ids(found) == [
        best(matching, query, k, excluded, group_by) for query, excluded in zip(asked, each, strict=True)
    ]


@kinds
@pytest.mark.parametrize("precision", [np.float16, np.float32])
def test_rounding_in_products_does_not_show(kind: str, precision: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are closer to each other than fp16 tells apart, and some are equal."""
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(2_000, 256))
    vectors = draw.normal(size=256) + np.concatenate([0.003 * noise[:900], 0.03 * noise[900:1_800], noise[1_800:]])
    vectors = np.float32(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(precision)
    vectors[100:300] = vectors[300:500]
    positions = draw.permutation(len(vectors)).tolist()
    rows = [
        plain_row(number, [0.0] * 8, stock=number % 11, category=f"c{number % 7}") | {"position": positions[number]}
        for number in range(len(vectors))
    ]
    copy = as_copy(rows, vectors)
    by_vector = [row | {"vector": vector} for row, vector in zip(rows, vectors, strict=True)]
    queries = np.float32(np.concatenate([vectors[:5], vectors[1_000:1_003]]))
    for conditions, kept in [
        ((), by_vector),
        ([Condition("stock", "<", 5)], [row for number, row in enumerate(by_vector) if number % 11 < 5]),
        ([Condition("stock", "=", 3)], [row for number, row in enumerate(by_vector) if number % 11 == 3]),
    ]:
        for group_by in (None, "category", "product"):
            expected = [best(kept, query, 60, (), group_by) for query in queries]
            found = searched(kind, copy).search(queries, 60, conditions, (), group_by)
            assert ids(found) == expected
            with monkeypatch.context() as patch:
                patch.setattr(exact, "MAX_SCORES", 5_000)
                patch.setattr(exact, "_ROWS_AT_ONCE", 100)
                in_parts = searched(kind, copy)
                assert in_parts.search(queries, 60, conditions, (), group_by) == found
                alone = [in_parts.search(query[None], 60, conditions, (), group_by)[0] for query in queries]
                assert alone == found


def test_the_order_is_that_of_evaluation() -> None:
    """Ties are in the gallery's order in both; scores closer than fp32 tells apart may be in any order in either."""
    features = unit_vectors(3_000, 64, seed=0)
    features[500:800] = features[:300]
    rows = [plain_row(number, [0.0] * 8) for number in range(len(features))]
    queries = features[:40] + unit_vectors(40, 64, seed=1)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    found = searched("fp32", as_copy(rows, features)).search(queries, 50)
    ranked = top_k(torch.from_numpy(queries), torch.from_numpy(features), 50)
    for ours, theirs, scores in zip(found, ranked.rows.tolist(), ranked.scores.tolist(), strict=True):
        np.testing.assert_allclose([row.score for row in ours], scores, rtol=0, atol=1e-6)
        places = {f"id {number}": place for place, number in enumerate(theirs)}
        for place, row in enumerate(ours):
            other = scores[places[row.id]] if row.id in places else scores[-1]
            assert row.id == f"id {theirs[place]}" or abs(row.score - other) < 1e-6


@given(st.lists(store_oracle.exact_vectors, min_size=1, max_size=60), st.lists(store_oracle.exact_vectors, min_size=1))
def test_the_order_is_that_of_evaluation_where_products_are_exact(
    gallery: list[list[float]], queries: list[list[float]]
) -> None:
    rows = [plain_row(number, vector) for number, vector in enumerate(gallery)]
    found = searched("fp32", as_copy(rows)).search(np.float32(queries), 20)
    ranked = top_k(torch.tensor(queries), torch.tensor(gallery), 20)
    assert ids(found) == [[f"id {number}" for number in of_query] for of_query in ranked.rows.tolist()]
    assert [[row.score for row in of_query] for of_query in found] == ranked.scores.tolist()


def test_what_cannot_be_asked_is_one_line() -> None:
    rows = searched("fp32", as_copy([plain_row(0, [1.0] * 8)]))
    query = np.ones((1, 8), np.float32)
    with pytest.raises(UsageError, match="there is no such field"):
        rows.search(query, 1, (), (), "colour")
    with pytest.raises(UsageError, match="there is no such field"):
        rows.search(query, 1, [Condition("colour", "=", "red")])
    with pytest.raises(UsageError, match="cannot be compared"):
        rows.search(query, 1, [Condition("stock", "=", "red")])
