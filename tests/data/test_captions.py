"""From annotated captions to query texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcl_cli.data.protocols import joined_or_alone
from mlcl_cli.data.records import Triplet


def test_two_captions_have_four_variants() -> None:
    assert joined_or_alone(("is shiny and silver, ", " Fit and FLARE?.")) == (
        "Is shiny and silver and Fit and FLARE",
        "Fit and flare and is shiny and silver",
        "Is shiny and silver",
        "Fit and flare",
    )


@pytest.mark.parametrize("blank", ["", ".", " .,? "])
def test_a_blank_caption_leaves_the_other(blank: str) -> None:
    assert joined_or_alone((blank, "is red")) == (" and is red", "Is red and ", "", "Is red")


@pytest.mark.parametrize("inner", ["v.neck, is it? yes", "\tis red\n"])
def test_only_full_stops_question_marks_commas_and_spaces_at_the_ends_are_stripped(inner: str) -> None:
    assert joined_or_alone((f"., ?{inner}?, .", "b"))[2] == inner.capitalize()


@given(st.text())
def test_one_caption_is_the_query_text_as_it_is(caption: str) -> None:
    triplet = Triplet("reference", "target", (caption,))
    assert triplet.texts == (triplet.query_text,) == (caption,)


def test_the_first_variant_is_the_query_text() -> None:
    assert Triplet("reference", "target", ("a", "b"), texts=("A and b", "A")).query_text == "A and b"


def test_texts_do_not_change_a_triplets_identity() -> None:
    """A run's identity hashes the representation of its triplets: a resume compares it with older runs."""
    triplet = Triplet("a", "b", ("c",), texts=("d",))
    assert triplet == Triplet("a", "b", ("c",))
    assert repr(triplet) == "Triplet(reference='a', target='b', captions=('c',), pair_id=None, members=())"
