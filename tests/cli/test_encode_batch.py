"""`clip.encode_batch` bounds memory and leaves the figures unchanged."""

from pathlib import Path

import pytest
from command_line import Mlcl
from world import world


def test_figures_do_not_depend_on_the_batch(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=30)
    figures = []
    for batch in ("auto", "3"):
        options = ("--set", f"clip.encode_batch={batch}", "--set", f"workspace=work-{batch}", "--json")
        figures.append(mlcl("evaluate", "--combining-function", "sum", *options).json["metrics"])
    assert figures[0] == pytest.approx(figures[1], abs=4)  # rounding may move one query of thirty across a tie


@pytest.mark.parametrize("wrong", ["0", "none", "-1"])
def test_invalid_batch_is_a_usage_error(mlcl: Mlcl, tmp_path: Path, wrong: str) -> None:
    world(tmp_path, "cirr")
    shown = mlcl("evaluate", "--set", f"clip.encode_batch={wrong}")
    assert shown.code == 2
    assert f"clip.encode_batch={wrong}: must be auto or a positive integer" in shown.err
