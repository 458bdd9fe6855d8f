"""From annotated captions to query texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcl_cli.data.captions import training_captions, validation_caption
from mlcl_cli.data.records import Triplet


def texts(dataset: str, *captions: str) -> tuple[str, ...]:
    triplet = Triplet("reference", "target", captions)
    assert validation_caption(dataset, triplet) == training_captions(dataset, triplet)[0]
    return training_captions(dataset, triplet)


def test_fashioniq_has_four_variants() -> None:
    assert texts("fashioniq", "is shiny and silver, ", " Fit and FLARE?.") == (
        "Is shiny and silver and Fit and FLARE",
        "Fit and flare and is shiny and silver",
        "Is shiny and silver",
        "Fit and flare",
    )


@pytest.mark.parametrize("blank", ["", ".", " .,? "])
def test_a_blank_caption_of_two(blank: str) -> None:
    assert texts("fashioniq", blank, "is red") == (" and is red", "Is red and ", "", "Is red")


@pytest.mark.parametrize("inner", ["v.neck, is it? yes", "\tis red\n"])
def test_only_full_stops_question_marks_commas_and_spaces_at_the_ends_go(inner: str) -> None:
    assert texts("fashioniq", f"., ?{inner}?, .", "b")[2] == inner.capitalize()


@given(st.text())
def test_one_caption_goes_in_as_it_is(caption: str) -> None:
    assert texts("shoes", caption) == texts("cirr", caption) == (caption,)


def test_two_captions_are_never_silently_cut_to_one() -> None:
    with pytest.raises(ValueError, match="too many values"):
        texts("cirr", "a", "b")
