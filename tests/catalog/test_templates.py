"""Captions name the new value, fit one change only, and say where a template is wrong."""

import random
from pathlib import Path

import pytest

from mlcl_cli.catalog.captions import DEFAULT_TEMPLATES, Captions, ValueChange
from mlcl_cli.errors import DataError
from mlcl_cli.workflows.make_triplets import read_captions

RED_TO_BLUE = ValueChange(0, "red", "blue")


def captions_of(folder: Path, text: str, *attributes: str) -> Captions:
    path = folder / "templates.yaml"
    path.write_text(text, encoding="utf-8")
    return read_captions(path, attributes, is_own=True)


def english(*attributes: str) -> Captions:
    return read_captions(DEFAULT_TEMPLATES, attributes, is_own=False)


def wordings(captions: Captions, *changes: ValueChange) -> set[str]:
    return {captions.caption(changes, random.Random(seed)) for seed in range(200)}


def test_english_captions_are_natural() -> None:
    captions = english("Color", "sleeve", "material", "heel_height")
    assert {"is blue", "in blue instead of red"} <= wordings(captions, RED_TO_BLUE)
    sleeves = {new: wordings(captions, ValueChange(1, "short", new)) for new in ("long", "long sleeves", "sleeveless")}
    assert {"with long sleeves", "has long sleeves instead of short"} <= sleeves["long"]
    assert "with long sleeves" in sleeves["long sleeves"]
    assert "is sleeveless" in sleeves["sleeveless"]
    assert "is made of wool" in wordings(captions, ValueChange(2, "silk", "wool"))
    assert "with low heel height" in wordings(captions, ValueChange(3, "high", "low"))
    assert any(
        " and is made of wool" in text for text in wordings(captions, RED_TO_BLUE, ValueChange(2, "silk", "wool"))
    )


def test_english_captions_tell_attributes_with_the_same_values_apart() -> None:
    names = ("color", "sleeve", "material", "pattern", "trim", "sole")
    english(*names).require_clear([["gold", "silver", "red"]] * len(names))


def test_templates_may_be_in_any_language(tmp_path: Path) -> None:
    text = "join: ' und '\ncolor: ['in {{ new }} statt {{ old }}']\ndefault:\n- mit {{ attribute }} „{{ new }}“\n"
    captions = captions_of(tmp_path, text, "color", "Ärmel")
    assert wordings(captions, RED_TO_BLUE, ValueChange(1, "kurz", "lang")) == {"in blue statt red und mit Ärmel „lang“"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("color: ['is {{ value }}']", ["line 1, color", "unknown variable 'value'", "new, old, attribute"]),
        ("\ncolor: ['is {{ new']", ["line 2, color", "not a valid template"]),
        ("color: ['is {{ new | shiny }}']", ["line 1, color", "not a valid template", "shiny"]),
        ("color: ['is not {{ old }}']", ["line 1, color", "does not name the new value", "{{ new }}"]),
        ("colour: ['is {{ new }}']", ["templates.yaml: has no templates", "'color'", "did you mean 'colour'?"]),
        ("color: 'is {{ new }}'", ["line 1", "color: must be a list of templates, not 'is {{ new }}'"]),
        ("color: [1]", ["line 1", "must be a list of templates"]),
        ("color: []", ["line 1", "must be a list of templates"]),
        ("join: 3\ncolor: ['is {{ new }}']", ["line 1", "join: must be text"]),
        ("color: ['is {{ new }}']\ncolor: ['{{ new }}']", ["line 2", "duplicate key"]),
        ("- a", ["line 1", "must be attributes with a list of templates each"]),
        ("color: [", ["line 1", "is not YAML"]),
        ("", ["must be attributes"]),
    ],
)
def test_wrong_template_is_refused_with_its_place(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(DataError) as refused:
        captions_of(tmp_path, text, "color")
    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("color: ['{{ new[:1] }}']", ["color 'blue' or color 'black'"]),
        ("color: ['{{ new }}']\nsole: ['{{ new }}']", ["'{{ new }}' is ambiguous", "color 'blue' or sole 'blue'"]),
        ("default: ['{{ new }}, not {{ old }}']", ["'{{ new }}, not {{ old }}' is ambiguous"]),
        ("default: ['{{ new.nothing.here }}']", ["fails for new='blue'"]),
        ("default: ['{{ new / 0 }}']", ["fails for new='blue'"]),
        ("default: ['{{ new.__class__.__mro__ }}']", ["fails for new='blue'"]),
        ("default: ['{% if not new %}x{% endif %}']", ["empty caption"]),
    ],
)
def test_ambiguous_or_failing_template_is_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    captions = captions_of(tmp_path, text, "color", *(["sole"] if "color:" not in text or "sole" in text else []))
    with pytest.raises(DataError) as refused:
        captions.require_clear([["blue", "black"]] * len(captions.templates))
    assert all(word in str(refused.value) for word in ["line 1" if "sole:" not in text else "line 2", *words])


def test_attributes_with_different_values_may_share_templates(tmp_path: Path) -> None:
    captions_of(tmp_path, "default: ['is {{ new }}']", "color", "size").require_clear(
        [["red", "blue"], ["small", "big"]]
    )


HEEL = "heel: ['with a {{ new }} heel']\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("relative: higher", ["line 2", "relative: must be named changes, not 'higher'"]),
        ("relative:\n  up: 3", ["line 3", "up:", "Write step, values, more and less, or take and captions"]),
        (
            "relative:\n  up: {step: heel, values: [low, high], more: [is higher]}",
            ["line 3", "up.less: field required"],
        ),
        ("relative:\n  up: {step: heel, values: [low, low], more: [a], less: [b]}", ["line 3", "value is repeated"]),
        ("relative:\n  up: {take: {heel: heel}, captions: [a]}", ["line 3", "takes its own value"]),
        ("relative:\n  up: {take: {heel: size}, captions: ['is {{ new }}']}", ["line 3, up", "uses a variable"]),
        ("relative:\n  up: {take: {heel: size}, captions: ['is {{']}", ["line 3, up", "not a valid template"]),
    ],
)
def test_wrong_relative_change_is_refused_with_its_place(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(DataError) as refused:
        captions_of(tmp_path, f"{HEEL}{text}\ndefault: ['{{{{ new }}}}']", "heel", "size")
    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("more", ["with a low heel", "is lower"])
def test_relative_caption_that_means_something_else_is_refused(tmp_path: Path, more: str) -> None:
    text = f"{HEEL}relative:\n  height: {{step: heel, values: [low, high], more: [{more}], less: [is lower]}}\n"
    with pytest.raises(DataError, match=r"line 3.* is ambiguous: .* could mean "):
        captions_of(tmp_path, text, "heel").require_clear([["low", "high"]])


def test_relative_change_of_other_attributes_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"{HEEL}relative:\n  like: {{take: {{heel: colour}}, captions: [the same]}}\n"
    assert captions_of(tmp_path, text, "heel").relative == []
    assert "line 3, like: 'colour' is not in --attributes" in capsys.readouterr().err


def test_relative_changes_may_use_numbers(tmp_path: Path) -> None:
    text = (
        "size: ['size {{ new }}']\nrelative:\n  size: {step: size, values: [36, 37], more: [larger], less: [smaller]}\n"
    )
    more, less = captions_of(tmp_path, text, "size").relative
    assert (more.moves[0].following, less.moves[0].following) == ({"36": "37"}, {"37": "36"})
