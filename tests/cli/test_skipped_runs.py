"""Damaged, moved and incomparable runs do not affect the use of other runs."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Mlcl
from world import tiny_clip

FAST = ("--epochs", "1", "--set", "combiner.augmented_views=1")


@pytest.fixture
def trained(cirr_runs: Path, tmp_path: Path) -> Path:
    """A copy of the trained workspace, to change; its combiner is named "first"."""
    folder = shutil.copytree(cirr_runs, tmp_path, dirs_exist_ok=True)
    (run,) = (folder / "work/combiner").iterdir()
    run.rename(run.with_name("first"))
    return folder


def another(run: Path, name: str, change: Callable[[Any], object]) -> Path:
    """A copy of a run with another summary."""
    copied = shutil.copytree(run, run.with_name(name))
    summary = json.loads((copied / "run.json").read_text())
    change(summary)
    (copied / "run.json").write_text(json.dumps(summary))
    return copied


def tuned_in(folder: Path) -> Path:
    (path,) = folder.glob("work/finetune/*/best.safetensors")
    return path


def best_of(summary: Any) -> Any:
    return summary["bests"]["arithmetic_mean"]


@pytest.mark.parametrize("how", [("--resume",), ("--set", "resume=auto"), ("--resume", "--run", "second")])
def test_resume_skips_a_damaged_run(mlcl: Mlcl, trained: Path, how: tuple[str, ...]) -> None:
    first = trained / "work/combiner/first"
    second = another(first, "second", lambda summary: summary.update(state="interrupted"))
    (first / "run.json").write_text("{")
    outcome = mlcl("train-combiner", *FAST, *how, "--json")
    assert outcome.json["run"] == str(second)
    assert ("--run" in how) or f"warning: Skipped a damaged run: {first / 'run.json'}: " in outcome.err


def test_check_notes_a_damaged_run_where_commands_have_another(mlcl: Mlcl, trained: Path) -> None:
    damaged = another(trained / "work/combiner/first", "second", lambda summary: summary.clear())
    result = mlcl("check", "--json").json
    assert result["verdicts"]["evaluate"] == "ok"
    (finding,) = [finding for finding in result["findings"] if finding["check"] == "checkpoints"]
    assert (finding["severity"], finding["where"]) == ("note", str(damaged / "run.json"))


@pytest.mark.parametrize("depth", ["kept", "far/away/kept"])
def test_run_outside_a_workspace_is_found_by_its_folder(mlcl: Mlcl, trained: Path, depth: str) -> None:
    moved = Path(shutil.copytree(trained / "work/combiner/first", trained / depth))
    assert mlcl("evaluate", "--checkpoint", str(moved), "--json").json["checkpoint"] == str(moved / "best.safetensors")


def test_scores_with_other_inference_weights_do_not_compare(mlcl: Mlcl, trained: Path) -> None:
    def change(summary: Any) -> None:
        summary["inference_weights"] = "matched"
        best_of(summary)["score"] = 99.0

    first = trained / "work/combiner/first"
    second = another(first, "second", change)
    outcome = mlcl("evaluate", "--json")
    assert outcome.json["checkpoint"] == str(first / "best.safetensors")
    assert "combiner/second (scored with inference_weights matched)" in outcome.err
    matched = mlcl("evaluate", "--json", "--set", "combiner.inference_weights=matched")
    assert matched.json["checkpoint"] == str(second / "best.safetensors")


def test_combiner_without_recorded_inference_weights_is_compared(mlcl: Mlcl, trained: Path) -> None:
    another(trained / "work/combiner/first", "second", lambda summary: summary.pop("inference_weights"))
    outcome = mlcl("evaluate", "--json")
    assert "best of 2" in outcome.err
    assert "Skipped" not in outcome.err


def test_clip_tuned_with_another_transform_is_used_with_a_warning(mlcl: Mlcl, trained: Path) -> None:
    clip = tuned_in(trained)
    other = ("--set", f"clip.checkpoint={clip}", "--set", "image.transform=clip", "--quiet")
    outcome = mlcl("evaluate", "--combining-function", "sum", *other)
    assert "/best.safetensors was tuned with image.transform targetpad and image.target_ratio 1.25, but" in outcome.err
    assert "was tuned with" not in mlcl("evaluate", "--quiet").err


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("batch", ["finetune", "combiner"])
def test_check_finds_batches_larger_than_the_data(mlcl: Mlcl, batch: str) -> None:
    outcome = mlcl("check", "--json", "--set", f"{batch}.batch_size=1000")
    failing = {command for command, verdict in json.loads(outcome.out)["verdicts"].items() if verdict != "ok"}
    assert failing == {"finetune" if batch == "finetune" else "train-combiner"}


@pytest.mark.parametrize("how", ["a combiner", "tuned from another model", "of another shape"])
def test_check_finds_a_checkpoint_that_does_not_fit(mlcl: Mlcl, trained: Path, how: str) -> None:
    path = trained / "work/combiner/first/best.safetensors" if how == "a combiner" else tuned_in(trained)
    if how != "a combiner":
        tiny_clip(trained / "clip.pt", seed=9, **({"transformer_layers": 2} if how == "of another shape" else {}))
    given = ("--set", f"clip.checkpoint={path}")
    outcome = mlcl("check", "--json", *given)
    assert json.loads(outcome.out)["verdicts"]["finetune"] == "would fail"
    (finding,) = [finding for finding in json.loads(outcome.out)["findings"] if finding["check"] == "checkpoints"]
    failed = mlcl("evaluate", "--combining-function", "sum", *given)
    assert failed.code == 3
    assert finding["what"] in failed.err


PROFILES: dict[str, Callable[[Path], object]] = {
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a FIFO": lambda path: (path.unlink(), os.mkfifo(path)),
    "of another data set": lambda path: path.write_text("dataset: shoes\n"),
}


@pytest.mark.parametrize("kind", PROFILES)
def test_report_is_written_despite_an_invalid_run_profile(mlcl: Mlcl, trained: Path, kind: str) -> None:
    PROFILES[kind](trained / "work/combiner/first/profile.yaml")
    outcome = mlcl("report", "combiner/first", "--json")
    assert outcome.json["runs"] == [{"run": "combiner/first", "sheet": False}]
    assert "profile.yaml" in outcome.err


def test_check_finds_a_split_without_good_images(mlcl: Mlcl, trained: Path) -> None:
    for path in (trained / "data/dev").iterdir():
        path.write_text("not an image")
    drop = ("--set", "bad_images=drop")
    result = json.loads(mlcl("check", "--json", *drop).out)
    assert result["verdicts"]["evaluate"] == result["verdicts"]["finetune"] == "would fail"
    assert result["verdicts"]["submit-cirr"] == "ok"
    findings = [each for each in result["findings"] if each["what"].startswith("cirr has no triplets left")]
    assert [finding["commands"] for finding in findings] == [["finetune", "train-combiner", "evaluate"]]
    assert "cirr has no triplets left" in mlcl("evaluate", *drop).err


@pytest.mark.parametrize("name", ["contents.json", "checked.json"])
def test_workspace_notes_are_not_written_through_links(mlcl: Mlcl, trained: Path, name: str) -> None:
    victim, note = trained / "victim.txt", trained / "work/features" / name
    victim.write_text("precious")
    note.unlink(missing_ok=True)
    note.symlink_to(victim)
    assert mlcl("check", "--content").code == 0
    assert mlcl("evaluate").code == 0
    assert victim.read_text() == "precious"
    note.unlink()
    os.mkfifo(note)
    assert mlcl("check", "--content").code == 0
    assert mlcl("evaluate").code == 0
    note.unlink()
    note.mkdir()
    assert mlcl("check", "--content").code == 0
    assert mlcl("evaluate").code == 0


def test_linked_feature_bank_deletes_nothing_in_its_target(mlcl: Mlcl, trained: Path) -> None:
    elsewhere = trained / "elsewhere"
    elsewhere.mkdir()
    for bank in [path for path in (trained / "work/features").iterdir() if path.is_dir()]:
        shutil.rmtree(bank)
        bank.symlink_to(elsewhere)
    for name in ("0001.safetensors", ".mine.partial"):
        (elsewhere / name).write_text("precious")
    outcome = mlcl("evaluate")
    assert (outcome.code, "0001.safetensors" in outcome.err) == (0, True)
    assert {(elsewhere / name).read_text() for name in ("0001.safetensors", ".mine.partial")} == {"precious"}


@pytest.mark.parametrize("command", [("evaluate", "--checkpoint"), ("finetune", "--from"), ("export",)])
def test_unknown_home_folder_is_a_usage_error(mlcl: Mlcl, trained: Path, command: tuple[str, ...]) -> None:
    more = (str(trained / "x.pt"),) if command == ("export",) else ()
    outcome = mlcl(*command, "~nobody-of-this-name/run", *more)
    assert (outcome.code, "has no home folder" in outcome.err) == (2, True)
