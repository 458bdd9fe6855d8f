"""`mlcl compare`, and the intervals of evaluate and score."""

from pathlib import Path
from shutil import copytree

import pytest
from command_line import Mlcl
from world import world

EVALUATE = ("evaluate", "--json", "--combining-function")


@pytest.fixture(scope="module")
def cirr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIRR with enough queries for an interval."""
    return world(tmp_path_factory.mktemp("compare"), "cirr", triplets=30)


def test_two_files_of_predictions_are_compared_on_the_same_queries(mlcl: Mlcl, cirr: Path) -> None:
    first = mlcl(*EVALUATE, "sum", "--predictions", "sum.json", folder=cirr).json["metrics"]
    second = mlcl(*EVALUATE, "text", "--predictions", "text.npz", folder=cirr).json["metrics"]
    result = mlcl("compare", "sum.json", "text.npz", "--json", folder=cirr).json
    assert (result["protocol"], result["queries"]) == ("cirr-val", 30)
    assert result["differences"].keys() == first.keys()
    for key, change in result["differences"].items():
        assert (change["first"], change["second"]) == (first[key], second[key])
        assert change["difference"] == second[key] - first[key]
        assert change["interval"]["low"] <= change["difference"] <= change["interval"]["high"]
        assert 0 < change["p"] <= change["adjusted"] <= 1
    table = mlcl("compare", "sum.json", "text.npz", folder=cirr).out
    assert "difference" in table
    assert "p (Holm)" in table
    back = mlcl("compare", "text.npz", "sum.json", "--json", folder=cirr).json["differences"]
    assert {key: -change["difference"] for key, change in back.items()} == {
        key: change["difference"] for key, change in result["differences"].items()
    }


def test_runs_and_checkpoints_are_compared(mlcl: Mlcl, cirr_runs: Path, tmp_path: Path) -> None:
    copytree(cirr_runs, tmp_path, dirs_exist_ok=True)
    combiner = mlcl("evaluate", "--json", "--predictions", "combiner.json").json
    same = mlcl("compare", "combiner.json", combiner["checkpoint"], "--json").json["differences"]
    assert all(change["difference"] == 0 and change["p"] == 1 for change in same.values())
    (tuned,) = (path.name for path in (tmp_path / "work/finetune").iterdir())
    by_sum = mlcl(*EVALUATE, "sum", "--set", f"clip.checkpoint=work/finetune/{tuned}/best.safetensors").json
    result = mlcl("compare", f"finetune/{tuned}", "combiner.json", "--json").json["differences"]
    assert {key: change["first"] for key, change in result.items()} == by_sum["metrics"]
    assert {key: change["second"] for key, change in result.items()} == combiner["metrics"]


def test_intervals_are_shown_beside_the_figures(mlcl: Mlcl, cirr: Path) -> None:
    evaluated = mlcl(*EVALUATE, "sum", "--intervals", "--predictions", "sum.json", folder=cirr).json
    assert evaluated["intervals"].keys() == evaluated["metrics"].keys()
    for key, (low, high) in evaluated["intervals"].items():
        assert low <= evaluated["metrics"][key] <= high
    assert mlcl("score", "sum.json", "--intervals", "--json", folder=cirr).json["intervals"] == evaluated["intervals"]
    assert "95% interval" in mlcl("score", "sum.json", "--intervals", folder=cirr).out
    assert "intervals" not in mlcl("score", "sum.json", "--json", folder=cirr).json


def test_too_few_queries_have_no_interval(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "fashioniq")
    outcome = mlcl(*EVALUATE, "sum", "--intervals")
    assert outcome.code == 3
    assert "dress has 10 queries: too few for an interval, which needs 20" in outcome.err
    assert mlcl(*EVALUATE, "sum", "--intervals", "--protocol", "all").code == 2


def test_models_judged_on_different_galleries_are_not_compared(mlcl: Mlcl, cirr: Path, tmp_path: Path) -> None:
    copytree(cirr, tmp_path, dirs_exist_ok=True)
    mlcl(*EVALUATE, "sum", "--predictions", "sum.json")
    mlcl("train-combiner", "--epochs", "1", "--set", "combiner.augmented_views=1", "--json")
    next((tmp_path / "data/dev").rglob("*.png")).write_bytes(b"")
    outcome = mlcl("compare", "sum.json", "combiner/cirr", "--set", "bad_images=drop")
    assert outcome.code == 3
    assert "sum.json and combiner/cirr are judged on different queries or galleries" in outcome.err


@pytest.mark.parametrize(
    ("names", "code", "message"),
    [
        (("none.json", "sum.json"), 3, "none.json: cannot be read"),
        (("cirr-2020", "sum.json"), 2, "'cirr-2020'"),
        (("sum.json", "sum.json", "--protocol", "shoes"), 2, "shoes is a protocol of shoes"),
        (("sum.json",), 2, "Missing argument"),
    ],
)
def test_wrong_usage_is_one_line(mlcl: Mlcl, cirr: Path, names: tuple[str, ...], code: int, message: str) -> None:
    mlcl(*EVALUATE, "sum", "--predictions", "sum.json", folder=cirr)
    outcome = mlcl("compare", *names, folder=cirr)
    assert outcome.code == code
    assert message in outcome.err
