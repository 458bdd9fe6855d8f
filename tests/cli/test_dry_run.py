"""`--dry-run` tries one batch, estimates what a run will take, and writes nothing."""

import re
from pathlib import Path

import pytest
from command_line import Mlcl
from world import world

COMMANDS = [("train-combiner",), ("finetune", "--encoder", "text"), ("finetune", "--encoder", "image")]


@pytest.mark.parametrize("dataset", ["fashioniq", "cirr"])
@pytest.mark.parametrize("command", COMMANDS)
def test_dry_run_estimates_and_writes_nothing(
    mlcl: Mlcl, tmp_path: Path, dataset: str, command: tuple[str, ...]
) -> None:
    world(tmp_path, dataset, triplets=30)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = mlcl(*command, "--dry-run", "--json").json
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "work").exists()
    assert result["dry_run"] is True
    assert result["loss"] > 0
    assert result["seconds"]["total"] > result["seconds"]["step"] > 0
    assert result["memory_bytes"] > 0
    assert result["disk_bytes"]["checkpoints"] > 0


def test_dry_run_reads_the_banks_without_changing_them(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=30)
    mlcl("evaluate", "--combining-function", "sum")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    shown = mlcl("train-combiner", "--dry-run")
    assert shown.code == 0, shown.err
    assert "total" in shown.out
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_dry_run_in_a_pipe_logs_its_phases(mlcl: Mlcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_output_has_units_and_json_plain_numbers(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=30)
    keep = ("train-combiner", "--dry-run", "--set", "checkpoints.keep_every=1")
    shown, result = mlcl(*keep).out, mlcl(*keep, "--json").json
    assert re.search(r"^time: features [\d.]+ m?s, step [\d.]+ m?s, .*, total [\d.]+ m?s$", shown, re.MULTILINE)
    assert re.search(r"^memory: [\d.]+ [MG]iB$", shown, re.MULTILINE)
    assert re.search(r"^disk: features .* KiB, checkpoints .* KiB, kept epochs .* KiB$", shown, re.MULTILINE)
    assert isinstance(result["memory_bytes"], int)
    assert {"features", "step", "validation", "training", "total"} == result["seconds"].keys()
    assert result["disk_bytes"]["kept_epochs"] > 0


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("resume", [("--resume",), ("--run", "cirr")])
def test_dry_run_cannot_be_combined_with_resume(
    mlcl: Mlcl, tmp_path: Path, command: tuple[str, ...], resume: tuple[str, ...]
) -> None:
    world(tmp_path, "cirr")
    shown = mlcl(*command, "--dry-run", *resume)
    assert shown.code == 2
    assert f"--dry-run: cannot be combined with {resume[0]}. Leave out --dry-run or {resume[0]}" in shown.err


def test_from_cannot_be_combined_with_resume(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    shown = mlcl("finetune", "--from", "none", "--resume")
    assert shown.code == 2
    assert "--from: cannot be combined with --resume. Leave out --from or --resume" in shown.err


def test_dry_run_ignores_automatic_resume(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    assert mlcl("train-combiner", "--dry-run", "--set", "resume=auto").code == 0
