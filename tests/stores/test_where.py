"""Conditions as text: what is written is what is read, and whatever is wrong is one line."""

from datetime import date, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcl_cli.errors import UsageError
from mlcl_cli.stores.comparisons import resolve
from mlcl_cli.stores.conditions import OPERATORS, Condition
from mlcl_cli.stores.where import as_conditions, parse_where, to_text

FIELDS = pa.schema(
    {
        "category": pa.string(),
        "größe in cm": pa.float64(),
        "it's `odd`": pa.string(),
        "stock": pa.int64(),
        "sale": pa.bool_(),
        "added": pa.date32(),
        "seen": pa.timestamp("us"),
        "in": pa.int64(),
        "and": pa.int64(),
        "sizes": pa.list_(pa.int64()),
    }
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = {
    "category": TEXT,
    "größe in cm": NUMBERS,
    "it's `odd`": TEXT,
    "stock": NUMBERS,
    "sale": st.booleans(),
    "added": st.dates(),
    "seen": st.datetimes(),
    "in": NUMBERS,
    "and": NUMBERS,
    "id": TEXT,
    "product": TEXT,
}


@st.composite
def condition(draw: st.DrawFn) -> Condition:
    name = draw(st.sampled_from([*VALUES]))
    operator = draw(st.sampled_from(["=", "!=", "in"] if name == "sale" else OPERATORS))
    if operator == "in":
        return Condition(name, operator, tuple(draw(st.lists(VALUES[name], min_size=1, max_size=4))))
    return Condition(name, operator, draw(VALUES[name]))


@given(st.lists(condition(), min_size=1, max_size=4))
def test_conditions_survive_being_written(conditions: list[Condition]) -> None:
    assert list(parse_where(to_text(conditions), FIELDS)) == conditions
    triples = [(one.field, one.operator, one.value) for one in conditions]
    assert list(as_conditions(triples, FIELDS)) == conditions


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(["stock", "<", "3", "and", "'a'", "in", "(", ")", ","])).map(" ".join)
)
def test_anything_else_is_one_line(text: str) -> None:
    try:
        parse_where(text, FIELDS)
    except UsageError as error:
        assert len(error.lines) == 1


ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | st.text() | st.sampled_from([*VALUES, *OPERATORS]) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
)


@given(st.lists(st.tuples(st.sampled_from([*VALUES]), st.sampled_from(OPERATORS), ANYTHING) | ANYTHING, max_size=3))
def test_any_structure_is_conditions_or_one_line(where: list[object]) -> None:
    try:
        found = as_conditions(where, FIELDS)  # type: ignore[arg-type]
    except UsageError as error:
        assert len(error.lines) == 1
    else:
        for condition in found:
            resolve(condition, FIELDS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected the name of a field, got the end"),
        ("prise < 3", "there is no field 'prise'"),
        ("stok < 3", "did you mean 'stock'?"),
        ("stock < 'x'", "stock is compared with 'x', expected a number"),
        ("category = boots", "put text in quotes, 'boots'"),
        ("category = 'boots", "character 12: the quote ' is not closed"),
        ("category = 'it's'", "character 16: expected and, got 's'"),
        ('"category" = 1', 'without quotes or in `backquotes`, got "category"'),
        ("sale < true", "sale is true or false, which < cannot compare"),
        ("sizes = 3", "sizes holds values of type list<item: int64>, which cannot be compared"),
        ("category = 3", "expected text in quotes"),
        ("sale = 1", "expected true or false"),
        ("added > 'soon'", "expected a date such as '2026-01-31'"),
        ("stock < 3 or stock > 5", "character 11: or is not supported; expected and, got 'or'"),
        ("stock in 3", "expected ( after in"),
        ("stock in (3", "expected ), got the end"),
        ("category like 'b%'", "like is not supported; expected one of =, !=, <, <=, >, >=, in, got 'like'"),
        ("(stock < 3)", "character 1: ( is not supported; expected the name of a field, got '('"),
        ("stock <", "expected a value, got the end"),
    ],
)
def test_what_is_wrong_is_said(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_where(text, FIELDS)
    assert problem in str(error.value)


def test_words_of_the_language_in_any_case() -> None:
    found = parse_where("category IN ('a', \"it's\") AND sale = TRUE and seen >= '2026-01-31 12:30'", FIELDS)
    assert found == (
        Condition("category", "in", ("a", "it's")),
        Condition("sale", "=", True),
        Condition("seen", ">=", datetime(2026, 1, 31, 12, 30)),
    )
    assert parse_where("added = '2026-01-31'", FIELDS)[0].value == date(2026, 1, 31)
