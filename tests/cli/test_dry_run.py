"""`--dry-run` tries one batch, says what a run will take, and writes nothing."""

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
