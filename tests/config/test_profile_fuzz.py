"""Anything at all gives a profile or a UsageError."""

from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlcl_cli.config import load_profile, template
from mlcl_cli.config.error_messages import KEYS
from mlcl_cli.errors import UsageError
from mlcl_cli.streams import printable

DATASETS = ("fashioniq", "shoes", "cirr")


def check(folder: Path, content: bytes, overrides: list[str]) -> None:
    path = folder / "mlcl.yaml"
    path.write_bytes(content)
    try:
        profile = load_profile(path, overrides)
    except UsageError as error:
        text = str(error)
        assert text
        assert all(line == printable(line) for line in text.split("\n"))
        assert not any(word in text for word in ("Input should", "Value error", "pydantic", "literal", "type="))
    else:
        assert load_profile(path, overrides) == profile


fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
words = st.sampled_from(["auto", "none", "cirr", "$X", "~", "~x", "RN50", "", "a/b", "mid", "hybrid", "cat"])
values = st.recursive(
    scalars | words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2), max_leaves=4
)
sections = ["roots", "shoes", "clip", "image", "finetune", "combiner", "evaluate"]


@fuzz
@given(st.binary(max_size=80), st.lists(st.text(max_size=12), max_size=2))
def test_any_bytes_give_a_profile_or_a_usage_error(folder: Path, content: bytes, overrides: list[str]) -> None:
    check(folder, content, overrides)


@fuzz
@given(data=st.data())
def test_any_change_of_the_template_gives_a_profile_or_a_usage_error(folder: Path, data: st.DataObject) -> None:
    lines = template(data.draw(st.sampled_from(DATASETS))).splitlines()
    row = data.draw(st.integers(0, len(lines) - 1))
    column = data.draw(st.integers(0, 30))
    lines[row] = (
        lines[row][:column] + data.draw(st.text(max_size=6)) + lines[row][column + data.draw(st.integers(0, 9)) :]
    )
    check(folder, "\n".join(lines).encode("utf-8", "surrogatepass"), [])


@example(content={}, typed=[("clip.model", "\x1b")])
@fuzz
@given(
    content=st.dictionaries(
        st.sampled_from(sorted({key.split(".")[0] for key in KEYS})) | st.text(max_size=5),
        values | st.dictionaries(st.sampled_from([key.split(".")[-1] for key in KEYS]), values, max_size=3),
        max_size=5,
    ),
    typed=st.lists(st.tuples(st.sampled_from([*KEYS, *sections, "x.y"]), values), max_size=3),
)
def test_any_values_give_a_profile_or_a_usage_error(
    folder: Path, content: dict[str, Any], typed: list[tuple[str, Any]]
) -> None:
    overrides = [f"{key}={yaml.safe_dump(value, default_flow_style=True).strip()}" for key, value in typed]
    check(folder, yaml.safe_dump({"dataset": "cirr", **content}, allow_unicode=True).encode(), overrides)
