"""A study's ranks, lists and classes beside a plain sort."""

from pathlib import Path

import pytest
import torch

from mlcl_cli.data.protocols import CIRR_VAL, FASHIONIQ_ORIGINAL, Protocol
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.html_report.analysis import TOP, Analysis, analysis
from mlcl_cli.retrieval.evaluation import Evaluation, image_query, sum_query, text_query
from mlcl_cli.retrieval.ranking import best_of_some

CAPTIONS = ["is red", "has longer sleeves and is much shorter than before", "", "a dog of a different breed sits"]


def material(
    protocol: Protocol, seed: int, images: int = 30, triplets: int = 25
) -> tuple[Split, FeatureTable, FeatureTable]:
    """A split of two sets whose images come twice each, so that scores tie."""
    draw = torch.Generator().manual_seed(seed)
    names = [f"image{number:02}" for number in range(images)]
    sets = []
    for part in range(2 if protocol is FASHIONIQ_ORIGINAL else 1):
        found = []
        for row in range(triplets):
            chosen = torch.randperm(images, generator=draw)[:6].tolist()
            caption = CAPTIONS[row % len(CAPTIONS)]
            captions = (caption, caption) if protocol is FASHIONIQ_ORIGINAL else (caption,)
            members = tuple(names[one] for one in chosen)
            found.append(Triplet(members[0], members[1], captions, members=members))
        sets.append(QuerySet(f"set{part}", tuple(found), tuple(names)))
    dataset = "fashioniq" if protocol is FASHIONIQ_ORIGINAL else "cirr"
    split = Split(dataset, "val", tuple(sets), {name: Path(name) for name in names})
    features = torch.randn(images // 2, 8, generator=draw).repeat(2, 1)
    texts = {CAPTION: row for row, CAPTION in enumerate(_captions(split))}
    values = torch.randn(len(texts), 8, generator=draw)
    return split, FeatureTable({name: row for row, name in enumerate(names)}, features), FeatureTable(texts, values)


def _captions(split: Split) -> list[str]:
    from mlcl_cli.data.captions import validation_caption

    return list(dict.fromkeys(validation_caption(split.dataset, triplet) for triplet in split.triplets))


def studied(protocol: Protocol, seed: int, sample: int = 5) -> tuple[Split, FeatureTable, FeatureTable, Analysis]:
    from mlcl_cli.data.captions import validation_caption

    split, images, texts = material(protocol, seed)
    evaluation = Evaluation(split, protocol, lambda triplet: validation_caption(split.dataset, triplet))
    alone = {"image only": image_query, "text only": text_query}
    return split, images, texts, analysis(evaluation, split, images, texts, sum_query, alone, sample=sample)


@pytest.mark.parametrize("protocol", [FASHIONIQ_ORIGINAL, CIRR_VAL], ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("seed", range(10))
def test_ranks_and_lists_are_those_of_a_plain_sort(protocol: Protocol, seed: int) -> None:
    split, images, texts, found = studied(protocol, seed)
    assert len(found.asked) == len(split.triplets)
    number = 0
    for part in split.sets:
        unit = torch.nn.functional.normalize(images.of(part.gallery), dim=-1)
        for triplet in part.triplets:
            asked = found.asked[number]
            assert (asked.part, asked.triplet) == (part.name, triplet)
            for rank, compose in ((asked.rank, sum_query), (asked.alone["text only"], text_query)):
                query = compose(texts.of([asked.caption]), images.of([triplet.reference]))
                scores = (unit.double() * query.double()).sum(dim=1)
                order = sorted(range(len(unit)), key=lambda row: (-float(scores[row]), row))
                names = [part.gallery[row] for row in order]
                if protocol.exclude_reference:
                    names.remove(triplet.reference)
                assert names[rank - 1] == triplet.target
                if compose is sum_query and number in found.tops:
                    assert [one.name for one in found.tops[number]] == names[:TOP]
            number += 1


@pytest.mark.parametrize("protocol", [FASHIONIQ_ORIGINAL, CIRR_VAL], ids=lambda protocol: protocol.name)
def test_samples_and_classes(protocol: Protocol) -> None:
    _, _, _, found = studied(protocol, 1)
    ranks = [asked.rank or 0 for asked in found.asked]
    assert all(ranks[number] <= TOP for number in found.samples["hits"])
    assert all(ranks[number] > TOP for number in found.samples["misses"])
    hardest = [ranks[number] for number in found.samples["hardest"]]
    assert hardest == sorted(ranks, reverse=True)[: len(hardest)]
    assert all(ranks[number] == 1 for number in found.samples["easiest"])
    margins = [found.tops[number][0].score - found.tops[number][1].score for number in found.samples["easiest"]]
    assert margins == sorted(margins, reverse=True)
    for number, top in found.tops.items():
        place = next(
            (place for place, one in enumerate(top, 1) if one.name == found.asked[number].triplet.target), None
        )
        assert place == (ranks[number] if ranks[number] <= TOP else None)
    assert sorted(number for some in found.by_length().values() for number in some) == list(range(len(ranks)))
    assert {number for some in found.by_kind().values() for number in some} == set(range(len(ranks)))
    every = range(len(ranks))
    assert found.recall(every) == pytest.approx(100 * sum(rank <= TOP for rank in ranks) / len(ranks))
    pooled = found.figures.metrics
    average = pooled["average/recall@10"] if "average/recall@10" in pooled else pooled["recall@10"]
    assert found.recall(every) == pytest.approx(average)


def test_a_list_has_scores_best_first_and_ends_with_what_is_excluded() -> None:
    gallery = torch.nn.functional.normalize(torch.randn(7, 4, generator=torch.Generator().manual_seed(3)), dim=-1)
    best = best_of_some(gallery, gallery, torch.tensor([1, 5]), 7, excluded=torch.arange(7))
    assert best.scores[:, :-1].tolist() == best.scores[:, :-1].sort(dim=1, descending=True).values.tolist()
    assert best.scores[:, -1].tolist() == [-torch.inf, -torch.inf]
    assert best.rows[:, -1].tolist() == [1, 5]
