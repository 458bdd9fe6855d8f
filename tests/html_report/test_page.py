"""The page's comparisons, names and settings."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mlcl_cli.data.protocols import SHOES
from mlcl_cli.data.records import Triplet
from mlcl_cli.html_report.analysis import WHOLE, Analysis, QueryResult, System
from mlcl_cli.html_report.comparison import Comparison, Move
from mlcl_cli.html_report.page import Group, Page
from mlcl_cli.html_report.reported_run import ReportedRun, headlines
from mlcl_cli.retrieval.bootstrap import Interval, compare
from mlcl_cli.retrieval.evaluation import Figures
from mlcl_cli.runs.description import ClipRecord, ImageRecord, Kind
from mlcl_cli.runs.listing import StoredRun
from mlcl_cli.runs.summary import BestCheckpoint, RunState, RunSummary

SUMMARY = RunSummary(
    kind=Kind.COMBINER,
    command="train-combiner",
    created="2026-01-31T12:00:00+00:00",
    state=RunState.FINISHED,
    epochs=3,
    epoch=3,
    bests={
        "recall_mean": BestCheckpoint(epoch=2, score=40.0, checkpoint="best.safetensors", metrics={"recall@1": 40.0})
    },
    dataset="shoes",
    protocol="shoes",
    clip=ClipRecord(model="RN50x4", checkpoint=None, fingerprint="0" * 16),
    image=ImageRecord(transform="targetpad", target_ratio=1.25),
    seed=0,
    device="cpu",
    versions={},
)


def reported(
    number: int, ranks: Sequence[int | None] | None, caption: str = "is red", recall: float = 40.0
) -> ReportedRun:
    """A run whose analysis has queries with the given ranks; without one if there are none."""
    run = ReportedRun(number, listed(number), SUMMARY, Path("/place"))
    if ranks is None:
        return run
    triplets = [Triplet(f"reference{row}", f"target{row}", (caption,)) for row in range(len(ranks))]
    queries = [
        QueryResult("shoes", triplet, caption, triplet.targets(), rank, None, {})
        for triplet, rank in zip(triplets, ranks, strict=True)
    ]
    hits = torch.tensor([[rank is not None and rank <= k for rank in ranks] for k in SHOES.recall_at]).double()
    values = {"shoes": {f"recall@{k}": column for k, column in zip(SHOES.recall_at, hits, strict=True)}}
    systems = [System(WHOLE, {"recall@1": recall}, {"recall@1": Interval(30.0, 50.0)})]
    figures = Figures({"recall@1": recall}, {}, {})
    analysis = Analysis(figures, queries, {}, [], {}, {}, systems, SHOES, values)
    return replace(run, analysis=analysis)


def listed(number: int, summary: RunSummary = SUMMARY, name: str = "") -> StoredRun:
    run = StoredRun(Path(f"missing/{name or f'shoes-20260131-12000{number}'}"), summary.kind)
    vars(run)["summary"] = summary  # as if read from its folder
    return run


def ranks_of(moves: Sequence[Move]) -> list[tuple[int, int]]:
    return [(move.before, move.after) for move in moves]


def test_a_comparison_counts_moves_and_lists_the_largest_first() -> None:
    pair = Comparison.of(reported(0, [1, 20, 4, 100, 8, None, 10]), reported(1, [1, 5, 8, 10, 80, 3, 11]))
    assert pair is not None
    assert len(pair.moves) == 6, "an unranked target has not moved"
    assert pair.counts == {"higher": 2, "same": 1, "lower": 3, "entered": 2, "left": 2}
    assert ranks_of(pair.ups(5)) == [(100, 10), (20, 5)]
    assert ranks_of(pair.ups(1)) == [(100, 10)]
    assert ranks_of(pair.downs(5)) == [(8, 80), (4, 8), (10, 11)]
    assert ranks_of(pair.downs(2)) == [(8, 80), (4, 8)]
    assert 'aria-label="2 targets moved up by a power of two or more, 2 down"' in pair.drawing


def test_runs_on_other_queries_or_without_an_analysis_are_not_compared() -> None:
    assert Comparison.of(reported(0, [1]), reported(1, [1], caption="is blue")) is None
    assert Comparison.of(reported(0, [1]), reported(1, None)) is None


def test_only_a_visible_difference_from_the_logged_metrics_counts() -> None:
    assert reported(0, None).difference == 0
    assert reported(0, [1], recall=40.004).difference == 0
    assert reported(0, [1], recall=41.5).difference == 1.5


def test_the_protocol_of_a_run_says_that_its_gallery_is_pruned() -> None:
    pruned = SUMMARY.model_copy(update={"pruned": True})
    older = RunSummary.model_validate(SUMMARY.model_dump() | {"protocol": "shoes (pruned gallery)", "pruned": False})
    assert (older.protocol, older.pruned) == ("shoes", True)
    for summary, label in ((SUMMARY, "shoes"), (pruned, "shoes (pruned gallery)"), (older, "shoes (pruned gallery)")):
        assert ReportedRun(0, listed(0), summary, Path()).protocol == label


def test_a_difference_is_that_of_the_paired_bootstrap_and_needs_enough_queries() -> None:
    first, second = reported(0, [1, 20, 4, 100] * 10), reported(1, [1, 5, 8, 10] * 10)
    pair = Comparison.of(first, second)
    assert pair is not None
    assert first.analysis is not None
    assert second.analysis is not None
    assert pair.difference == compare(SHOES, first.analysis.values, second.analysis.values)["recall_mean"]
    few = Comparison.of(reported(0, [1, 20]), reported(1, [1, 5]))
    assert few is not None
    assert few.difference is None


def test_an_interval_is_shown_only_beside_the_figure_that_it_belongs_to() -> None:
    assert reported(0, [1]).interval("recall@1") == Interval(30.0, 50.0)
    assert reported(0, [1], recall=41.5).interval("recall@1") is None
    assert reported(0, None).interval("recall@1") is None


def with_seeds(scores: Sequence[float], seeds: Sequence[int] = range(9), name: str = "") -> list[ReportedRun]:
    runs = []
    for number, (score, seed) in enumerate(zip(scores, seeds, strict=False)):
        best = BestCheckpoint(epoch=1, score=score, checkpoint="best.safetensors", metrics={"recall_mean": score})
        summary = SUMMARY.model_copy(update={"seed": seed, "bests": {"recall_mean": best}})
        runs.append(ReportedRun(number, listed(number, summary, name), summary, Path()))
    return runs


def with_epochs(number: int, epochs: int) -> ReportedRun:
    summary = SUMMARY.model_copy(update={"epochs": epochs})
    return ReportedRun(number, listed(number, summary), summary, Path())


def groups_of(*runs: ReportedRun) -> Sequence[Group]:
    return Page("now", "0", runs, 8).groups


def test_runs_that_differ_in_the_seed_alone_are_one_setting_with_mean_and_deviation() -> None:
    (group,) = groups_of(*with_seeds([50.0, 60.0, 70.0]), with_epochs(3, 9), with_epochs(4, 9))
    assert [setting.name for setting in group.settings] == ["combiner", "combiner, epochs 9"]
    assert group.shared == "a combiner has epochs 3"
    spread = group.settings[0].spread("recall_mean")
    assert spread is not None
    assert (spread.mean, spread.deviation) == (60, pytest.approx(10))
    assert group.settings[1].spread("recall@1") is None, "both runs have the same seed"


def test_of_runs_with_the_same_seed_the_last_one_counts() -> None:
    (group,) = groups_of(*with_seeds([10.0, 50.0, 70.0], seeds=[0, 0, 1]))
    (setting,) = group.settings
    assert [*setting.by_seed] == [0, 1]
    spread = setting.spread("recall_mean")
    assert spread is not None
    assert spread.mean == 60


def test_a_page_names_runs_in_each_group_by_what_differs() -> None:
    runs = with_seeds([50.0, 60.0])
    cirr = SUMMARY.model_copy(update={"dataset": "cirr"})
    page = Page("now", "0", [*runs, ReportedRun(2, listed(2, cirr), cirr, Path())], 8)
    assert [[run.name for run in group.runs] for group in page.groups] == [
        ["combiner, seed 0", "combiner, seed 1"],
        ["combiner"],
    ]
    assert page.title == "3 runs on shoes, cirr"
    assert page.groups[0].best_run.number == 1


def test_a_run_that_has_a_name_is_called_by_it_and_its_setting_is_not() -> None:
    (group,) = groups_of(*with_seeds([50.0], name="ours"), *with_seeds([60.0], seeds=[1]))
    assert [run.name for run in group.runs] == ["ours (combiner, seed 0)", "combiner, seed 1"]
    assert [setting.name for setting in group.settings] == ["combiner"]


def test_the_best_run_of_each_setting_is_compared_with_that_of_the_one_before() -> None:
    def analyzed(run: ReportedRun) -> ReportedRun:
        return replace(run, analysis=reported(0, [1, 2, 3]).analysis)

    seeds = [analyzed(run) for run in with_seeds([50.0, 70.0, 60.0])]
    (group,) = groups_of(*seeds, analyzed(with_epochs(3, 9)))
    assert [(pair.before.number, pair.after.number) for pair in group.comparisons] == [(1, 3)]
    (alone,) = groups_of(*seeds)
    assert [(pair.before.number, pair.after.number) for pair in alone.comparisons] == [(0, 1), (1, 2)]


def test_headlines_are_averages_where_there_are_some() -> None:
    assert headlines({"dress/recall@10": 1.0, "average/recall@10": 1.0}) == ["average/recall@10"]
    assert headlines({"recall@1": 1.0, "arithmetic_mean": 1.0, "harmonic_mean": 1.0}) == ["recall@1", "arithmetic_mean"]
