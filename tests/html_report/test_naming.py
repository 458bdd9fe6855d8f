"""Names of runs and metrics, and texts without places of a machine."""

from pathlib import Path
from typing import Any

import pytest
from test_page import SUMMARY

from mlcl_cli.html_report.naming import name_runs, setting_keys, settings_of, spoken, without_places
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.summary import RunSummary


def summary(seed: int = 0, clip: str = "a" * 16, kind: Kind = Kind.COMBINER, **settings: Any) -> RunSummary:
    record = SUMMARY.clip.model_copy(update={"fingerprint": clip})
    profile = {"dataset": "shoes", "seed": seed, "combiner": {"levels": ["sum", "cat", "hybrid"], **settings}}
    return SUMMARY.model_copy(update={"seed": seed, "clip": record, "kind": kind, "identity": {"profile": profile}})


def test_runs_are_named_by_what_differs() -> None:
    assert name_runs([summary()]) == ["combiner"]
    assert name_runs([summary(0), summary(1)]) == ["combiner, seed 0", "combiner, seed 1"]
    assert name_runs([summary(levels=["hybrid"]), summary()]) == [
        "combiner, levels high",
        "combiner, levels low+mid+high",
    ]
    rates = [summary(learning_rate=2e-5, sscl=["mid", "high"]), summary(learning_rate=0.1, sscl=[])]
    assert name_runs(rates) == [
        "combiner, learning rate 2e-05, SSCL mid+high",
        "combiner, learning rate 0.1, SSCL none",
    ]


def test_runs_of_another_kind_do_not_count_as_different() -> None:
    assert name_runs([summary(), summary(1, kind=Kind.CLIP)]) == ["combiner", "fine-tuned CLIP"]


def test_the_clip_is_named_only_where_nothing_else_differs() -> None:
    assert name_runs([summary(), summary(clip="b" * 16)]) == ["combiner, CLIP aaaaaa", "combiner, CLIP bbbbbb"]
    assert name_runs([summary(), summary(1, clip="b" * 16)]) == ["combiner, seed 0", "combiner, seed 1"]


def test_equal_runs_are_numbered_and_every_name_is_unique() -> None:
    assert name_runs([summary(), summary(), summary(1)]) == [
        "combiner, seed 0, run 1",
        "combiner, seed 0, run 2",
        "combiner, seed 1",
    ]


def test_a_setting_is_all_but_the_seed() -> None:
    keys = setting_keys([summary(), summary(1), summary(levels=["cat"]), summary(clip="b" * 16)])
    assert keys[0] == keys[1]
    assert len({*keys}) == 3


def test_a_run_of_an_older_version_has_few_settings() -> None:
    assert settings_of(SUMMARY) == {"epochs": "3", "seed": "0", "CLIP": "000000"}


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("average/recall@10", "average recall@10"),
        ("recall_mean", "recall mean"),
        ("map@5", "mAP@5"),
        ("mean(recall@5,recall_subset@1)", "mean of recall@5 and recall subset@1"),
    ],
)
def test_metrics_are_named_in_words(metric: str, words: str) -> None:
    assert spoken(metric) == words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("workspace: /home/ann/project/runs", "workspace: runs"),
        ("cirr: /home/ann/project", "cirr: ."),
        ("root: /mnt/data/fashion iq/images\nseed: 0", "root: …/fashion iq/images\nseed: 0"),
        ("/home/ann/projects/x.json: is missing (/opt/y)", "…/x.json: is missing (…/y)"),
        ("model: /über/clip.pt", "model: …/clip.pt"),
        ("ratio 5/6, STAGE/NAME, ../clip.pt, and/or", "ratio 5/6, STAGE/NAME, ../clip.pt, and/or"),
    ],
)
def test_a_text_loses_the_places_of_the_machine(text: str, shown: str) -> None:
    assert without_places(text, Path("/home/ann/project")) == shown
