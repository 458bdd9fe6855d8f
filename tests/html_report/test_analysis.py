"""Ranks, retrieved images and classes of an analysis beside a plain sort."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mlcl_cli.data.protocols import CIRR_VAL, FASHIONIQ_ORIGINAL, SHOES, Protocol
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.html_report.analysis import CHANCE, STRIPS, TOP, WHOLE, Analysis, analyze, wilson
from mlcl_cli.retrieval.bootstrap import intervals
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
    result = analyze(evaluation, images, texts, sum_query, parts, sample=sample, compared=("text only",))
    return split, images, texts, result


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


def test_strips_are_hits_and_misses_in_the_proportion_of_all_queries() -> None:
    for seed in range(10):
        _, _, _, result = analyzed(CIRR_VAL, seed)
        hits = [result.queries[number].hit for number in result.strips]
        share = sum(query.hit for query in result.queries) / len(result.queries)
        assert len(set(result.strips)) == len(hits) == STRIPS
        assert sum(hits) == min(max(round(STRIPS * share), 1), STRIPS - 1)
        assert hits == sorted(hits, reverse=True)
        assert all(number in result.tops for number in result.strips)


def test_systems_are_compared_with_chance_and_have_intervals() -> None:
    split, images, texts, result = analyzed(CIRR_VAL, 1)
    assert [system.name for system in result.systems] == [CHANCE, "text only", WHOLE]
    evaluation = Evaluation(split, CIRR_VAL)
    ranks = evaluation.ranks(images, texts, text_query)
    assert result.systems[1].metrics == evaluation.figures(ranks).metrics
    assert result.systems[1].intervals == intervals(CIRR_VAL, evaluation.values(ranks))
    assert result.systems[0].metrics["recall@1"] == pytest.approx(100 / 29)
    assert result.intervals == result.systems[-1].intervals


def test_too_few_queries_have_no_intervals() -> None:
    split, images, texts = random_split(SHOES, 1, triplets=19)
    result = analyze(Evaluation(split, SHOES), images, texts, sum_query, {}, sample=2)
    assert result.intervals is None


def test_everything_keeps_the_first_images_of_all_queries() -> None:
    split, images, texts = random_split(SHOES, 2)
    some, every = (
        analyze(Evaluation(split, SHOES), images, texts, sum_query, {}, sample=3, everything=everything)
        for everything in (False, True)
    )
    assert list(every.tops) == list(range(25))
    assert all(every.tops[number] == top for number, top in some.tops.items())


@pytest.mark.parametrize("map_at", [(), (5,)])
def test_any_of_several_targets_is_a_hit(map_at: tuple[int, ...]) -> None:
    split, images, texts = random_split(SHOES, 3)
    (part,) = split.sets
    triplets = tuple(
        replace(triplet, other_targets=triplet.members[2 : 2 + row % 3]) for row, triplet in enumerate(part.triplets)
    )
    split = replace(split, sets=(replace(part, triplets=triplets),))
    protocol = replace(SHOES, any_target=True, map_at=map_at)
    result = analyze(Evaluation(split, protocol), images, texts, sum_query, {}, sample=5, everything=True)
    assert result.several_targets
    assert [system.name for system in result.systems] == [WHOLE], "chance is not known"
    for number, (query, triplet) in enumerate(zip(result.queries, triplets, strict=True)):
        assert query.targets == triplet.targets()
        places = [place for place, image in enumerate(result.tops[number], 1) if image.name in query.targets]
        assert query.hit == bool(places)
        assert not places or query.rank == places[0]
    assert result.recall(range(25)) == pytest.approx(result.figures.metrics["recall@10"])


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (7, 7), (3, 10), (500, 1000)])
def test_wilson_bounds_are_the_shares_at_which_the_score_test_turns(hits: int, count: int) -> None:
    bounds = wilson(hits, count)
    for bound, extreme in ((bounds.low / 100, hits == 0), (bounds.high / 100, hits == count)):
        distance = abs(hits / count - bound) - 1.959964 * (bound * (1 - bound) / count) ** 0.5
        assert distance == pytest.approx(0, abs=1e-9)
        assert not extreme or bound in (pytest.approx(0, abs=1e-9), pytest.approx(1))
