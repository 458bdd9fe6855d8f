"""Ranks, retrieved images and classes of an analysis beside a plain sort."""

from pathlib import Path

import pytest
import torch

from mlcl_cli.data.protocols import CIRR_VAL, FASHIONIQ_ORIGINAL, SHOES, Protocol
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.html_report.analysis import TOP, Analysis, analyze
from mlcl_cli.retrieval.evaluation import Evaluation, image_query, sum_query, text_query

CAPTIONS = ["is red", "has longer sleeves and is much shorter than before", "", "a dog of a different breed sits"]


def random_split(
    protocol: Protocol, seed: int, images: int = 30, triplets: int = 25
) -> tuple[Split, FeatureTable, FeatureTable]:
    """A split whose images come twice each, so that scores tie."""
    draw = torch.Generator().manual_seed(seed)
    names = [f"image{number:02}" for number in range(images)]
    sets = []
    for part in range(2 if protocol is FASHIONIQ_ORIGINAL else 1):
        drawn = []
        for row in range(triplets):
            chosen = torch.randperm(images, generator=draw)[:6].tolist()
            caption = CAPTIONS[row % len(CAPTIONS)]
            captions = (caption, caption) if protocol is FASHIONIQ_ORIGINAL else (caption,)
            members = tuple(names[one] for one in chosen)
            drawn.append(Triplet(members[0], members[1], captions, members=members))
        sets.append(QuerySet(f"set{part}", tuple(drawn), tuple(names)))
    dataset = "fashioniq" if protocol is FASHIONIQ_ORIGINAL else "cirr"
    split = Split(dataset, "val", tuple(sets), {name: Path(name) for name in names})
    features = torch.randn(images // 2, 8, generator=draw).repeat(2, 1)
    texts = {caption: row for row, caption in enumerate(_captions(split))}
    values = torch.randn(len(texts), 8, generator=draw)
    return split, FeatureTable({name: row for row, name in enumerate(names)}, features), FeatureTable(texts, values)


def _captions(split: Split) -> list[str]:
    return list(dict.fromkeys(triplet.query_text for triplet in split.triplets))


def analyzed(protocol: Protocol, seed: int, sample: int = 5) -> tuple[Split, FeatureTable, FeatureTable, Analysis]:
    split, images, texts = random_split(protocol, seed)
    evaluation = Evaluation(split, protocol)
    parts = {"image only": image_query, "text only": text_query}
    return split, images, texts, analyze(evaluation, images, texts, sum_query, parts, sample=sample)


@pytest.mark.parametrize("protocol", [FASHIONIQ_ORIGINAL, CIRR_VAL], ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("seed", range(10))
def test_ranks_and_retrieved_images_equal_a_plain_sort(protocol: Protocol, seed: int) -> None:
    split, images, texts, result = analyzed(protocol, seed)
    assert len(result.queries) == len(split.triplets)
    number = 0
    for part in split.sets:
        unit = torch.nn.functional.normalize(images.of(part.gallery), dim=-1)
        for triplet in part.triplets:
            own = result.queries[number]
            assert (own.set_name, own.triplet) == (part.name, triplet)
            for rank, compose in ((own.rank, sum_query), (own.part_ranks["text only"], text_query)):
                query = compose(texts.of([own.caption]), images.of([triplet.reference]))
                scores = (unit.double() * query.double()).sum(dim=1)
                order = sorted(range(len(unit)), key=lambda row: (-float(scores[row]), row))
                names = [part.gallery[row] for row in order]
                if protocol.exclude_reference:
                    names.remove(triplet.reference)
                assert names[rank - 1] == triplet.target
                if compose is sum_query and number in result.tops:
                    assert [one.name for one in result.tops[number]] == names[:TOP]
            number += 1


@pytest.mark.parametrize("protocol", [FASHIONIQ_ORIGINAL, CIRR_VAL], ids=lambda protocol: protocol.name)
def test_samples_and_classes_fit_the_ranks(protocol: Protocol) -> None:
    _, _, _, result = analyzed(protocol, 1)
    ranks = [query.rank or 0 for query in result.queries]
    assert all(ranks[number] <= TOP for number in result.samples["hits"])
    assert all(ranks[number] > TOP for number in result.samples["misses"])
    hardest = [ranks[number] for number in result.samples["hardest"]]
    assert hardest == sorted(ranks, reverse=True)[: len(hardest)]
    assert all(ranks[number] == 1 for number in result.samples["easiest"])
    margins = [result.tops[number][0].score - result.tops[number][1].score for number in result.samples["easiest"]]
    assert margins == sorted(margins, reverse=True)
    for number, top in result.tops.items():
        place = next(
            (place for place, one in enumerate(top, 1) if one.name == result.queries[number].triplet.target), None
        )
        assert place == (ranks[number] if ranks[number] <= TOP else None)
    assert sorted(number for some in result.by_length().values() for number in some) == list(range(len(ranks)))
    assert {number for some in result.by_kind().values() for number in some} == set(range(len(ranks)))
    every = range(len(ranks))
    assert result.recall(every) == pytest.approx(100 * sum(rank <= TOP for rank in ranks) / len(ranks))
    pooled = result.figures.metrics
    average = pooled["average/recall@10"] if "average/recall@10" in pooled else pooled["recall@10"]
    assert result.recall(every) == pytest.approx(average)


def test_an_excluded_reference_is_not_retrieved_and_an_own_target_is_unranked() -> None:
    names = tuple(f"image{number}" for number in range(5))
    triplets = (Triplet("image0", "image1", ("a",)), Triplet("image2", "image2", ("a",)))
    split = Split("shoes", "val", (QuerySet("shoes", triplets, names),), {})
    images, texts = (
        FeatureTable({name: row for row, name in enumerate(names)}, torch.eye(5)),
        FeatureTable({"a": 0}, torch.eye(5)[:1]),
    )
    evaluation = Evaluation(split, SHOES)
    result = analyze(evaluation, images, texts, sum_query, {"image only": image_query}, sample=2)
    assert [query.rank for query in result.queries] == [1, None]
    assert result.queries[1].part_ranks == {"image only": None}
    assert result.samples == {"hits": [0], "misses": [1], "hardest": [1], "easiest": [0]}
    assert [one.name for one in result.tops[1]] == ["image0", "image1", "image3", "image4"]
