"""The benchmark runs on a machine without a GPU, and its plain side computes what ours does."""

import pytest
import torch
from conftest import Mlcl

from mlcl_cli.bench.measure import Row, Timing
from mlcl_cli.bench.synthetic_data import CIRR_WORDS, captions
from mlcl_cli.workflows.bench import ROWS


@pytest.mark.parametrize("group", ROWS)
def test_every_group_of_rows_is_measured_and_both_sides_agree(mlcl: Mlcl, group: str) -> None:
    found = mlcl("bench", "--smallest", "--repeats", "1", "--only", group, "--device", "cpu", "--json").json
    assert found["rows"]
    for row in found["rows"]:
        assert row["disagreement"] is None, row
        assert row["ours"]["median_s"] > 0
        assert (row["ratio"] is None) == (row["plain"] is None)


def test_the_table_is_shown_and_an_unknown_group_is_an_error(mlcl: Mlcl) -> None:
    shown = mlcl("bench", "--smallest", "--repeats", "1", "--only", "large-gallery", "--device", "cpu")
    assert shown.code == 0
    assert "rank 1,000 in 2,000" in shown.out
    wrong = mlcl("bench", "--only", "everything")
    assert wrong.code == 2
    assert "There are decoding" in wrong.err


def test_a_row_whose_sides_disagree_has_no_ratio() -> None:
    fast, slow = Timing((1.0, 2.0, 9.0), None), Timing((10.0,), 1)
    assert Row("x", "item", (10, 5), fast, slow).ratio == pytest.approx(10.0)
    assert Row("x", "item", (10, 5), fast, slow, "they differ").ratio is None
    assert Row("x", "item", (1, 1), fast, slow, None, 0.5).share == 0.25


def test_captions_are_as_long_as_real_ones() -> None:
    lengths = torch.tensor([float(len(text.split())) for text in captions(4000, CIRR_WORDS, 0)])
    assert lengths.quantile(0.5) == 10
    assert lengths.quantile(0.9) == 16
