"""The metrics of --json: names, order and means."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlcl_cli.data.datasets import DATASETS, named_protocol
from mlcl_cli.data.definition import DataSet
from mlcl_cli.data.protocols import (
    CIRR_VAL,
    FASHIONIQ_ORIGINAL,
    SHOES,
    chance,
    describe,
    split_protocol_name,
    summarize,
)
from mlcl_cli.errors import UsageError


def test_fashioniq_averages_its_categories() -> None:
    recalls = {
        "dress": {"recall@10": 10.0, "recall@50": 20.0},
        "shirt": {"recall@10": 20.0, "recall@50": 40.0},
        "toptee": {"recall@10": 60.0, "recall@50": 90.0},
    }
    assert list(summarize(FASHIONIQ_ORIGINAL, recalls).items()) == [
        ("dress/recall@10", 10.0),
        ("dress/recall@50", 20.0),
        ("shirt/recall@10", 20.0),
        ("shirt/recall@50", 40.0),
        ("toptee/recall@10", 60.0),
        ("toptee/recall@50", 90.0),
        ("average/recall@10", 30.0),
        ("average/recall@50", 50.0),
        ("average/recall", 40.0),
    ]


def test_shoes_metrics_end_with_their_mean() -> None:
    figures = summarize(SHOES, {"shoes": {"recall@1": 10.0, "recall@10": 20.0, "recall@50": 60.0}})
    assert list(figures.items()) == [
        ("recall@1", 10.0),
        ("recall@10", 20.0),
        ("recall@50", 60.0),
        ("recall_mean", 30.0),
    ]


def cirr_recalls(*values: float) -> dict[str, dict[str, float]]:
    keys = [f"recall@{k}" for k in (1, 5, 10, 50)] + [f"recall_subset@{k}" for k in (1, 2, 3)]
    return {"cirr": dict(zip(keys, values, strict=True))}


def test_cirr_metrics_end_with_their_means() -> None:
    figures = summarize(CIRR_VAL, cirr_recalls(4, 2, 8, 4, 4, 4, 4))
    assert list(figures) == [
        *("recall@1", "recall@5", "recall@10", "recall@50", "recall_subset@1", "recall_subset@2", "recall_subset@3"),
        *("arithmetic_mean", "harmonic_mean", "geometric_mean", "mean(recall@5,recall_subset@1)"),
    ]
    assert figures["arithmetic_mean"] == pytest.approx(30 / 7)
    assert figures["harmonic_mean"] == pytest.approx(7 / (5 / 4 + 1 / 2 + 1 / 8))
    assert figures["geometric_mean"] == pytest.approx(4)
    assert figures["mean(recall@5,recall_subset@1)"] == 3


def test_a_harmonic_or_geometric_mean_with_a_zero_is_zero() -> None:
    figures = summarize(CIRR_VAL, cirr_recalls(0, 2, 8, 4, 4, 4, 4))
    assert figures["harmonic_mean"] == figures["geometric_mean"] == 0
    assert all(value == 0 for value in summarize(CIRR_VAL, cirr_recalls(*[0] * 7)).values())


def test_golden_recalls_have_means_between_their_extremes(golden: Path) -> None:
    expected = json.loads((golden / "metrics_cirr.json").read_text())["expected"]
    recalls = [expected[f"recall_at{k}"] for k in (1, 5, 10, 50)] + [expected[f"group_recall_at{k}"] for k in (1, 2, 3)]
    figures = summarize(CIRR_VAL, cirr_recalls(*recalls))
    harmonic, geometric, arithmetic = (figures[f"{kind}_mean"] for kind in ("harmonic", "geometric", "arithmetic"))
    assert min(recalls) < harmonic < geometric < arithmetic < max(recalls)


def test_a_pruned_gallery_is_a_field_that_the_label_shows() -> None:
    pruned = replace(CIRR_VAL, pruned=True)
    assert (CIRR_VAL.name, CIRR_VAL.label) == ("cirr-val", "cirr-val")
    assert (pruned.name, pruned.label) == ("cirr-val", "cirr-val (pruned gallery)")
    assert split_protocol_name(pruned.label) == ("cirr-val", True)
    assert split_protocol_name("cirr-val") == ("cirr-val", False)


def test_chance_is_the_expected_recall_of_a_random_ranking() -> None:
    figures = chance(CIRR_VAL, {"cirr": 101})
    assert [figures[f"recall@{k}"] for k in (1, 50)] == pytest.approx([1, 50])
    assert [figures[f"recall_subset@{k}"] for k in (1, 2, 3)] == pytest.approx([20, 40, 60])
    assert chance(FASHIONIQ_ORIGINAL, {"dress": 100, "shirt": 40})["average/recall@50"] == pytest.approx(75)


def test_every_best_is_a_metric() -> None:
    for known in DATASETS.values():
        for protocol in known.protocols:
            recalls = {f"recall@{k}": 1.0 for k in protocol.recall_at}
            recalls |= {f"recall_subset@{k}": 1.0 for k in protocol.subset_recall_at}
            recalls |= {f"map@{k}": 1.0 for k in protocol.map_at}
            assert set(protocol.bests) <= summarize(protocol, {"set": recalls}).keys()


def test_each_data_set_has_its_protocol() -> None:
    fashioniq, shoes, cirr = (DATASETS[name] for name in ("fashioniq", "shoes", "cirr"))
    assert fashioniq.protocol().name == "fashioniq-original"
    assert fashioniq.protocol("val").name == "fashioniq-val"
    assert shoes.protocol().name == "shoes"
    assert cirr.protocol().name == "cirr-val"
    assert cirr.protocol("val") == cirr.protocol()
    assert not fashioniq.protocol().exclude_reference
    assert shoes.protocol().exclude_reference
    assert cirr.protocol().exclude_reference
    assert DATASETS["circo"].protocol().name == "circo-val"
    assert DATASETS["circo"].protocol(captions="relative+concept").name == "circo-val-concept"
    assert cirr.protocol(captions="relative+concept") == cirr.protocol()
    assert DATASETS["fashion200k"].protocol().name == "fashion200k"


def test_circo_metrics_are_recalls_then_map_then_map_by_aspect() -> None:
    values = {f"{kind}@{k}": 1.0 * k for kind in ("map", "recall") for k in (50, 25, 10, 5)}
    values |= {"map@10/addition": 3.0, "map@10/viewpoint": 4.0, "map@5/addition": 5.0}
    assert [*summarize(DATASETS["circo"].protocol(), {"circo": values})] == [
        *("recall@5", "recall@10", "recall@25", "recall@50", "map@5", "map@10", "map@25", "map@50"),
        *("map@10/addition", "map@10/viewpoint"),
    ]


def test_the_reference_can_be_removed_or_kept_under_another_name() -> None:
    fashioniq, shoes = DATASETS["fashioniq"], DATASETS["shoes"]
    for gallery in ("original", "val"):
        usual = fashioniq.protocol(gallery)
        removed = fashioniq.protocol(gallery, exclude_reference=True)
        assert removed in fashioniq.protocols
        assert removed.name == f"fashioniq-{gallery}-noref"
        assert replace(removed, name=usual.name, exclude_reference=False, systems=usual.systems) == usual
        assert fashioniq.protocol(gallery, exclude_reference=False) == usual
    kept = shoes.protocol(exclude_reference=False)
    assert (kept.name, kept.exclude_reference) == ("shoes-withref", False)
    assert shoes.protocol(exclude_reference=True) == shoes.protocol()


def test_an_unknown_gallery_is_refused() -> None:
    with pytest.raises(UsageError, match="fashioniq has no gallery 'all'"):
        DATASETS["fashioniq"].protocol("all")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cirr-val", "cirr"),
        ("fashioniq-val-noref", "fashioniq"),
        ("shoes-withref", "shoes"),
        ("circo-val-concept", "circo"),
        ("circo-val-concept-noref", "circo"),
        ("fashion200k", "fashion200k"),
    ],
)
def test_a_protocol_is_found_by_its_name(name: str, expected: str) -> None:
    dataset, protocol = named_protocol(name, DATASETS["shoes"])
    assert (dataset.name, protocol.name) == (expected, name)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown protocol 'coco'\. Choose one of shoes, fashioniq-original"):
        named_protocol("coco", DATASETS["shoes"])


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda dataset: dataset.name)
def test_a_protocol_is_described_in_words(dataset: DataSet) -> None:
    for protocol in dataset.protocols:
        words = " ".join(describe(protocol, {"set": 1234}, {"set": 5678}))
        assert protocol.name in words
        assert "1,234 queries, 5,678 gallery images" in words
        assert ("is removed" in words) == protocol.exclude_reference
        assert ("stays" in words) != protocol.exclude_reference
        assert protocol.captions.words in words
        assert protocol.target_words in words
        assert ("per semantic aspect" in words) == (protocol.aspect_map_at is not None)
        assert "equal scores rank in gallery order" in words
        assert all(f"{k}" in words for k in protocol.recall_at)
