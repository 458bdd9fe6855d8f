"""The YAML reader: 1.2 core scalars, one document, duplicate keys reported, alias bombs refused."""

import contextlib
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcl_cli.config.strict_yaml import MAX_CHARACTERS, LineError, parse

fuzz = settings(max_examples=300, deadline=None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-6", 2e-6),
        ("2.0e-6", 2e-6),
        ("1E3", 1000.0),
        ("1e+3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5", -1.5),
        ("+7", 7),
        ("0777", 777),
        ("0o17", 15),
        ("0x1F", 31),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("none", "none"),
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("On", "On"),
        ("y", "y"),
        ("tRue", "tRue"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1e", "1e"),
        ("e5", "e5"),
        (".", "."),
        ("inf", "inf"),
        ("٣", "٣"),
        ("2024-01-31", "2024-01-31"),
        ("2024-01-31 10:00:00", "2024-01-31 10:00:00"),
        ("=", "="),
        ("'3'", "3"),
        ('"true"', "true"),
        ("!!str 3", "3"),
        ("! 3", "3"),
        ("|\n  3\n", "3\n"),
        ("[1, [a, no], {b: 2}]", [1, ["a", "no"], {"b": 2}]),
        ("{true: 1, 3: 2, no: 3}", {"true": 1, "3": 2, "no": 3}),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    parsed = parse(text).value
    assert parsed == value
    assert type(parsed) is type(value)


def test_nan_is_a_number() -> None:
    parsed = parse(".NaN").value
    assert isinstance(parsed, float)
    assert math.isnan(parsed)


def test_each_key_has_its_line() -> None:
    document = parse("# comment\na: 1\nb:\n  c: 2\n\n  d: {e: 3}\nf: [1,\n  2]\n")
    assert document.value == {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": [1, 2]}
    assert document.lines == {("a",): 2, ("b",): 3, ("b", "c"): 4, ("b", "d"): 6, ("b", "d", "e"): 6, ("f",): 7}


def test_duplicate_keys_name_both_lines() -> None:
    document = parse("a: 1\nb: {c: 1,\n  c: 2}\n'a': 3\n")
    assert [(error.line, error.what) for error in document.duplicates] == [
        (3, "b.c: duplicate key, first defined on line 2"),
        (4, "a: duplicate key, first defined on line 1"),
    ]
    assert document.value == {"a": 3, "b": {"c": 2}}


def test_an_empty_document_is_none() -> None:
    assert parse("").value is None
    assert parse("# only a comment\n").value is None
    assert parse("---\n").value is None


def test_aliases_repeat_a_value() -> None:
    assert parse("a: &x [1, 2]\nb: *x\n").value == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("a: 1\n---\nb: 2\n", "second document", 2),
        ("a: 1\nb: [1\n", "is not YAML", 3),
        ("a: 1\n\tb: 2\n", "is not YAML", 2),
        ("a: 1\n<<: {b: 2}\n", "merge key", 2),
        ("a: !!python/object:os.system x\n", "YAML tag", 1),
        ("a: !mine {b: 1}\n", "YAML tag", 1),
        ("a: !!set {b}\n", "YAML tag", 1),
        ("a: !!int 3\n", "YAML tag", 1),
        ("? [a, b]\n: 1\n", "key that is not plain text", 1),
        ("a: *x\n", "not defined above", 1),
        ("a: &x [1, *x]\n", "contains itself", 1),
        ("a: b\0c\n", "not allowed in YAML", 1),
        ("a:\n  \ud800\n", "not allowed in YAML", 2),
        ("a: \x1b[31m\n", "not allowed in YAML", 1),
        ("a: " + "9" * 5000 + "\n", "digits", 1),
        ("a: 0x" + "f" * 5000 + "\n", "digits", 1),
        ("%YAML 3.0\n---\na: 1\n", "is not YAML", None),
        ('a: "\\UFFFFFFFF"\n', "is not YAML", None),
        ("[" * 50_000, "deep|depth", 1),
        ("a: " * 50, "is not YAML", 1),
        ("- " * 50_000, "deep|depth", 1),
        ("a\n" * MAX_CHARACTERS, "too large", None),
        ("[" + "1," * 20_000 + "]", "too large", 1),
    ],
)
def test_unsupported_yaml_is_refused_with_its_line(text: str, what: str, line: int | None) -> None:
    with pytest.raises(LineError, match=what) as error:
        parse(text)
    assert line is None or error.value.line == line


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    levels = ["a0: &a0 [1, 2, 3]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    started = time.perf_counter()
    with pytest.raises(LineError, match="too large"):
        parse("\n".join(levels))
    assert time.perf_counter() - started < 1


@fuzz
@given(st.text(st.sampled_from("ab01.:-?,[]{}#&*!|>'\"%@` \n\t\\xU~<=eE+_é\x85\u2028\ufeff"), max_size=40))
def test_any_text_gives_a_document_or_a_yaml_error(text: str) -> None:
    with contextlib.suppress(LineError):
        parse(text)


@fuzz
@given(st.from_regex(r"[-+.0-9eExo:_]{1,8}", fullmatch=True))
def test_quoted_scalars_are_text(text: str) -> None:
    assert parse(f'"{text}"').value == text
