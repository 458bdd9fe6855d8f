"""Captions and the kinds of change that they name."""

import json
from collections import Counter
from pathlib import Path

import pytest

from mlcl_cli.html_report.analysis import OTHER, WORDS, kinds_of

REAL = Path(__file__).parents[3] / "shared/annotations/cirr/captions/cap.rc2.val.json"


@pytest.mark.parametrize(
    ("caption", "kinds"),
    [
        ("is black instead of brown", ("color",)),
        ("Has a Floral PRINT and is more colorful", ("color", "pattern or print")),
        ("has longer sleeves", ("shape or size",)),
        ("has a v-neck and a lower hem", ("shape or size",)),
        ("is made of shiny leather, embellished", ("material",)),
        ("is sexier and less casual", ("style",)),
        ("show three dogs", ("number",)),
        ("has one button", ("shape or size", "number")),
        ("with a V neck instead of a square one", ("shape or size", "type of object")),
        ("remove the leash", ("addition or removal",)),
        ("facing left, in front of a wall", ("place or view",)),
        ("is a boot instead of a sneaker", ("type of object",)),
        ("a dog of another breed", ("number", "type of object")),
        ("", (OTHER,)),
        ("barking", (OTHER,)),
    ],
)
def test_a_caption_names_its_kinds_of_change(caption: str, kinds: tuple[str, ...]) -> None:
    assert kinds_of(caption) == kinds


def test_only_whole_words_count() -> None:
    assert kinds_of("covered, predator, thinking, towel") == (OTHER,)


@pytest.mark.skipif(not REAL.exists(), reason="needs the real CIRR captions")
def test_nine_in_ten_real_captions_name_a_kind() -> None:
    captions = [record["caption"] for record in json.loads(REAL.read_text())]
    counts = Counter(kind for caption in captions for kind in kinds_of(caption))
    assert counts[OTHER] < 0.1 * len(captions)
    assert counts.keys() == {*WORDS, OTHER}
