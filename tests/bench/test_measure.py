"""What is measured, and what a row says about it."""

import time

import pytest
import torch

from mlcl_cli.bench.measure import Machine, Row, Timing
from mlcl_cli.models.compute import Compute

FAST, SLOW = Timing.of([1.0, 2.0, 9.0]), Timing.of([10.0], 1)


def test_timing_has_median_and_extremes() -> None:
    assert (FAST.median_s, FAST.least_s, FAST.most_s, FAST.memory_bytes) == (2.0, 1.0, 9.0, None)


def test_ratio_compares_times_per_item() -> None:
    assert Row("x", "item", (10, 5), FAST, SLOW).ratio == pytest.approx(10.0)


def test_row_has_no_ratio_if_the_sides_disagree_or_there_is_no_baseline() -> None:
    assert Row("x", "item", (10, 5), FAST, SLOW, "they differ").ratio is None
    assert Row("x", "item", (10, 5), FAST, None).ratio is None


def test_share_of_floor_is_relative_to_our_median() -> None:
    row = Row("x", "item", (1, 1), FAST, SLOW, None, 0.5, "half a second")
    assert row.as_json()["share_of_floor"] == 0.25
    assert row.as_json()["floor"] == "half a second"


def test_sides_run_in_turn_and_their_results_are_compared() -> None:
    runs: list[str] = []

    def side(name: str) -> str:
        runs.append(name)
        time.sleep(0.001)
        return name

    machine = Machine(Compute(torch.device("cpu"), None), repeats=3)
    row = machine.compare(
        "x", "item", 1, lambda: side("ours"), lambda: side("baseline"), lambda ours, baseline: f"{ours} {baseline}"
    )
    assert runs == ["ours", "baseline"] * 4  # the first of each warms up
    assert row.disagreement == "ours baseline"
    assert row.baseline is not None
    assert min(row.ours.least_s, row.baseline.least_s) > 0.001
