"""Which pictures a page embeds, and how large they are."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from test_analysis import random_split

from mlcl_cli.data.protocols import SHOES
from mlcl_cli.html_report.analysis import analyze
from mlcl_cli.html_report.explorer import SHOWN, Explorer
from mlcl_cli.html_report.pictures import LARGE, MEDIUM, SMALL, Pictures
from mlcl_cli.images.thumbnails import Thumbnail
from mlcl_cli.retrieval.evaluation import Evaluation, sum_query, text_query


class Embedded:
    """Makes thumbnails of 900 bytes and records which; one named bad.png cannot be read."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def __call__(self, images: Sequence[tuple[str, Path]], side: int) -> Iterator[Thumbnail | None]:
        for name, _ in images:
            self.asked.append((name, side))
            yield None if name == "bad.png" else Thumbnail(1, 1, bytes(900))


def ids(symbols: Sequence[str]) -> list[int]:
    return [int(number) for number in re.findall(r'<symbol id="p(\d+)"', "".join(symbols))]


def test_pictures_are_embedded_once_and_numbered_by_first_use() -> None:
    embed = Embedded()
    pictures = Pictures(embed)
    paths = [Path("b.png"), Path("a/bad.png"), Path("b.png"), Path("c.png")]
    assert [pictures.number(path) for path in paths] == [0, 1, 0, 2]
    pictures.number(Path("c.png"), large=True)
    symbols = list(pictures.named(10**6))
    assert embed.asked == [("c.png", LARGE), ("b.png", MEDIUM), ("bad.png", MEDIUM)]
    assert ids(symbols) == [2, 0, 1]
    assert symbols[2] == '<symbol id="p1"></symbol>\n'


def test_further_pictures_end_where_the_room_does() -> None:
    embed = Embedded()
    pictures = Pictures(embed)
    pictures.number(Path("0.png"))
    wanted = [Path(f"{number}.png") for number in (0, 1, 1, 2, 3, 4, 5, 6)]
    symbols = list(pictures.further(wanted, 4_000))
    assert 0 < sum(map(len, symbols)) <= 4_000
    assert ids(symbols) == [1, 2, 3]
    assert list(pictures.numbers) == [Path(f"{number}.png") for number in range(4)]
    assert {side for _, side in embed.asked} == {SMALL}
    assert list(pictures.further(wanted, -5)) == []


def test_pictures_without_room_are_empty_symbols() -> None:
    pictures = Pictures(Embedded())
    for number in range(5):
        pictures.number(Path(f"{number}.png"))
    symbols = list(pictures.named(2_000))
    assert ids(symbols) == list(range(5))
    assert ["<image" in symbol for symbol in symbols] == [True, True, False, False, False]


@pytest.mark.parametrize("room", [0, 20_000, 10**9])
def test_the_queries_to_search_are_those_of_the_analysis(room: int) -> None:
    split, images, texts = random_split(SHOES, 1)
    analysis = analyze(
        Evaluation(split, SHOES), images, texts, sum_query, {"text only": text_query}, sample=2, everything=True
    )
    explorer = Explorer(0, "combiner", analysis, {"other": [None] * 25})
    pictures = Pictures(Embedded())
    symbols = list(pictures.further(explorer.wanted(), room))
    assert sum(map(len, symbols)) <= room
    data = json.loads(explorer.as_json(pictures.numbers))
    names = data["names"]
    pictured = 0
    for number, query in enumerate(analysis.queries):
        assert data["caption"][number] == query.caption
        assert names[data["reference"][number]] == query.triplet.reference
        assert [names[place] for place in data["targets"][number]] == [query.triplet.target]
        assert data["rank"][number] == query.rank
        assert data["parts"]["text only"][number] == query.part_ranks["text only"]
        top = [image.name for image in analysis.tops[number]]
        assert [names[place] for place in data["top"][number]] == top
        needed = {query.triplet.reference, query.targets[0], *top[:SHOWN]}
        pictured += all(data["pictures"][names.index(name)] >= 0 for name in needed)
    assert data["pictured"] == pictured
    assert (pictured == 25) == (room == 10**9)
    assert pictured > 0 or room == 0
    assert sum(number >= 0 for number in data["pictures"]) == len(ids(symbols))


def test_a_caption_cannot_end_the_script_element() -> None:
    split, images, texts = random_split(SHOES, 1)
    analysis = analyze(Evaluation(split, SHOES), images, texts, sum_query, {}, sample=2, everything=True)
    text = Explorer(0, "</script><script>alert(1)</script>", analysis, {}).as_json({})
    assert "<" not in text
    assert json.loads(text)["label"] == "</script><script>alert(1)</script>"
