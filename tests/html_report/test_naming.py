"""Names of runs and metrics, and texts without places of a machine."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_page import SUMMARY

from mlcl_cli.html_report.naming import Names, meaning, setting_keys, spoken, titled, without_places
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.summary import RunState, RunSummary


def summary(
    seed: int = 0, clip: str = "a" * 16, kind: Kind = Kind.COMBINER, data: str = "", **settings: Any
) -> RunSummary:
    record = SUMMARY.clip.model_copy(update={"fingerprint": clip})
    profile = {"dataset": "shoes", "seed": seed, "combiner": {"levels": ["sum", "cat", "hybrid"], **settings}}
    changes = {"seed": seed, "clip": record, "kind": kind, "identity": {"profile": profile}}
    return SUMMARY.model_copy(update={**changes, "data": {"train": data} if data else None})


def names(*summaries: RunSummary) -> list[str]:
    return [*Names.of(summaries).runs]


def test_runs_are_named_by_what_differs() -> None:
    assert names(summary()) == ["combiner"]
    assert names(summary(0), summary(1)) == ["combiner, seed 0", "combiner, seed 1"]
    assert names(summary(levels=["hybrid"]), summary()) == ["combiner, levels high", "combiner, levels low+mid+high"]
    assert names(summary(learning_rate=2e-5, sscl=["mid", "high"]), summary(learning_rate=0.1, sscl=[])) == [
        "combiner, learning rate 2e-05, SSCL mid+high",
        "combiner, learning rate 0.1, SSCL none",
    ]


def test_what_most_runs_share_is_told_once() -> None:
    both = ["mid", "high"]
    runs = [summary(sscl=both), summary(1, sscl=both), summary(levels=["hybrid"], sscl=both), summary(sscl=["mid"])]
    told = Names.of(runs)
    assert told.runs == [
        "combiner, seed 0",
        "combiner, seed 1",
        "combiner, levels high, seed 0",
        "combiner, SSCL mid, seed 0",
    ]
    assert told.settings == ["combiner", "combiner", "combiner, levels high", "combiner, SSCL mid"]
    assert told.shared == "a combiner has levels low+mid+high, SSCL mid+high"
    assert Names.of(runs[:2]).shared == Names.of(runs[1:3]).shared == ""


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["hybrid", "cat"]), st.sampled_from([1.0, 2.0, 3.0])),
        min_size=1,
        max_size=7,
        unique=True,
    )
)
def test_different_runs_have_different_names_and_a_setting_is_a_name_without_its_seed(
    drawn: list[tuple[int, str, float]],
) -> None:
    runs = [summary(seed, levels=[level], learning_rate=rate) for seed, level, rate in drawn]
    told = Names.of(runs)
    assert len({*told.runs}) == len(drawn)
    keys = setting_keys(runs)
    for name, setting, (seed, _, _) in zip(told.runs, told.settings, drawn, strict=True):
        assert name in (setting, f"{setting}, seed {seed}")
    for one in range(len(runs)):
        for other in range(len(runs)):
            same = drawn[one][1:] == drawn[other][1:]
            assert (keys[one] == keys[other]) == (told.settings[one] == told.settings[other]) == same


def test_runs_of_another_kind_do_not_count_as_different() -> None:
    assert names(summary(), summary(1, kind=Kind.CLIP)) == ["combiner", "fine-tuned CLIP"]


def test_clip_and_training_data_are_named_only_where_nothing_else_tells_settings_apart() -> None:
    clips = summary(), summary(clip="b" * 16)
    assert names(*clips) == ["combiner, CLIP untuned aaaaaa", "combiner, CLIP untuned bbbbbb"]
    assert names(summary(), summary(1, clip="b" * 16, levels=["cat"])) == [
        "combiner, levels low+mid+high, seed 0",
        "combiner, levels mid, seed 1",
    ]
    assert names(summary(data="c" * 16), summary(data="d" * 16)) == [
        "combiner, training data cccccc",
        "combiner, training data dddddd",
    ]


def test_equal_runs_are_numbered_and_every_name_is_unique() -> None:
    assert names(summary(), summary(), summary(1)) == [
        "combiner, seed 0, run 1",
        "combiner, seed 0, run 2",
        "combiner, seed 1",
    ]


def test_a_setting_is_all_but_the_seed() -> None:
    unfinished = summary(1).model_copy(update={"state": RunState.INTERRUPTED, "epoch": 1})
    others = summary(levels=["cat"]), summary(clip="b" * 16), summary(data="c" * 16), unfinished
    keys = setting_keys([summary(), summary(1), *others])
    assert keys[0] == keys[1]
    assert len({*keys}) == 5


def test_an_unfinished_run_says_how_far_it_is() -> None:
    unfinished = SUMMARY.model_copy(update={"state": RunState.INTERRUPTED, "epoch": 1})
    assert names(SUMMARY, unfinished) == ["combiner, epochs 3", "combiner, epochs 1 of 3"]


def test_the_name_that_the_user_gave_comes_first() -> None:
    assert titled("ours", "combiner, seed 0") == "ours (combiner, seed 0)"
    assert titled(None, "combiner, seed 0") == "combiner, seed 0"


@pytest.mark.parametrize(
    ("metric", "metrics", "words"),
    [
        ("recall_mean", ("recall@1", "recall@10", "recall_mean"), "mean of recall@1 and 10"),
        (
            "average/recall",
            ("dress/recall@10", "average/recall@10", "average/recall@50", "average/recall"),
            "mean of recall@10 and 50 over the query sets",
        ),
        (
            "harmonic_mean",
            ("recall@1", "recall@5", "recall@10", "recall_subset@1", "harmonic_mean", "mean(recall@5,recall_subset@1)"),
            "harmonic mean of recall@1, 5 and 10 and of recall subset@1",
        ),
        ("map@5", ("recall@5", "map@5"), "mAP@5"),
    ],
)
def test_a_deciding_metric_is_explained(metric: str, metrics: tuple[str, ...], words: str) -> None:
    assert meaning(metric, metrics) == words


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
