"""`--dry-run` tries one batch, says what a run will take, and writes nothing."""

import re
from pathlib import Path

import pytest
from conftest import Mlcl
from world import world

COMMANDS = [("train-combiner",), ("finetune", "--encoder", "text"), ("finetune", "--encoder", "image")]


@pytest.mark.parametrize("dataset", ["fashioniq", "cirr"])
@pytest.mark.parametrize(
    "command", [("train-combiner",), ("finetune", "--encoder", "text"), ("finetune", "--encoder", "image")]
)
def test_a_dry_run_estimates_and_writes_nothing(
    mlcl: Mlcl, tmp_path: Path, dataset: str, command: tuple[str, ...]
) -> None:
    world(tmp_path, dataset, triplets=30)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    found = mlcl(*command, "--dry-run", "--json").json
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "work").exists()
    assert found["dry_run"] is True
    assert found["loss"] > 0
    assert found["seconds"]["total"] > found["seconds"]["step"] > 0
    assert found["memory_bytes"] > 0
    assert found["disk_bytes"]["checkpoints"] > 0


def test_a_dry_run_uses_the_banks_and_leaves_them(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=30)
    mlcl("evaluate", "--combining-function", "sum")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    shown = mlcl("train-combiner", "--dry-run")
    assert shown.code == 0, shown.err
    assert "total" in shown.out
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_dry_run_in_a_pipe_says_what_it_does(mlcl: Mlcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlcl_cli.workflows.dry_run.SECONDS_BETWEEN_NOTES", 0.01)
    world(tmp_path, "cirr", triplets=30)
    lines = [line for line in mlcl("train-combiner", "--dry-run").err.splitlines() if "Dry run: " in line]
    begun = [line.removeprefix("· Dry run: ") for line in lines if "still" not in line]
    assert begun == [
        "loading CLIP and encoding one batch",
        "timing 64 images",
        "step 1 of 4",
        "step 2 of 4",
        "step 3 of 4",
        "step 4 of 4",
        "validating on a few queries",
    ]
    assert any(re.search("still loading CLIP and encoding one batch, 0.[0-9]+ s so far", line) for line in lines)


def test_people_read_units_and_scripts_plain_numbers(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=30)
    keep = ("train-combiner", "--dry-run", "--set", "checkpoints.keep_every=1")
    shown, found = mlcl(*keep).out, mlcl(*keep, "--json").json
    assert re.search(r"^time: features [\d.]+ m?s, step [\d.]+ m?s, .*, total [\d.]+ m?s$", shown, re.MULTILINE)
    assert re.search(r"^memory: [\d.]+ [MG]iB$", shown, re.MULTILINE)
    assert re.search(r"^disk: features .* KiB, checkpoints .* KiB, kept epochs .* KiB$", shown, re.MULTILINE)
    assert isinstance(found["memory_bytes"], int)
    assert {"features", "step", "validation", "training", "total"} == found["seconds"].keys()
    assert found["disk_bytes"]["kept_epochs"] > 0
