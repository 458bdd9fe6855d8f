"""What people see while a command works: on a terminal, in a pipe, and when they ask for quiet."""

import json
import re
from pathlib import Path

import pytest
from command_line import Mlcl
from world import world

COLOR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return world(tmp_path, "shoes")


@pytest.fixture
def prepared(mlcl: Mlcl, folder: Path) -> Path:
    assert mlcl("prepare-shoes").code == 0
    return folder


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))


@pytest.mark.parametrize("width", [60, 80, 200])
def test_terminal_shows_bars_losses_and_best_epoch(
    mlcl: Mlcl, prepared: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    on_a_terminal(monkeypatch, width)
    outcome = mlcl("train-combiner")
    display = ESCAPE.sub("", outcome.err[outcome.err.index("Epochs") :])
    lines = display.replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= width
    whole = " ".join(display.split())
    assert re.search(r"Epochs ━* 2 of 2 00:0\d [\d,]+ triplets/s", whole)
    terms = "loss [\\d.]+ = hybrid [\\d.]+ \\+ cat [\\d.]+ \\+ sum [\\d.]+ \\+ sscl mid [\\d.]+ \\+ sscl high [\\d.]+"
    assert re.search(terms, whole)
    assert re.search(r"temperature [\d.]+ · temperature sscl [\d.]+ · level weight [\d.]+", whole)
    best = best_of_run(prepared)
    assert f"best recall_mean {best[0]:.2f} at epoch {best[1]}" in whole
    assert COLOR.search(outcome.err)


@pytest.mark.usefixtures("prepared")
def test_pipe_gets_plain_lines(mlcl: Mlcl) -> None:
    outcome = mlcl("train-combiner")
    assert not ESCAPE.search(outcome.err + outcome.out)
    (line,) = [line for line in outcome.err.splitlines() if "Training" in line]
    assert re.search(r"epoch 2 of 2 · [\d,]+ triplets/s · loss .* · temperature .* · best recall_mean", line)
    assert "· Profile: " in outcome.err


@pytest.mark.usefixtures("prepared")
def test_quiet_prints_progress_only(mlcl: Mlcl, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch, 400)
    outcome = mlcl("train-combiner", "--quiet")
    (line,) = ESCAPE.sub("", outcome.err).splitlines()
    assert "epoch 2 of 2" in line


@pytest.mark.usefixtures("prepared")
def test_no_color_prints_no_color(mlcl: Mlcl, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch, 80)
    monkeypatch.setenv("NO_COLOR", "1")
    outcome = mlcl("train-combiner")
    assert "Epochs" in outcome.err
    assert not COLOR.search(outcome.err + outcome.out)


@pytest.mark.usefixtures("prepared")
def test_long_steps_have_their_own_bar(mlcl: Mlcl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlcl_cli.cli.terminal_progress.LONG", 0.0)
    monkeypatch.setattr("mlcl_cli.training.loop.SECONDS_BETWEEN_FIGURES", 0.0)
    on_a_terminal(monkeypatch, 80)
    outcome = mlcl("finetune", "--encoder", "both", "--batch-size", "4")
    assert re.search(r"Steps .* 3 of 3", ESCAPE.sub("", outcome.err))


def best_of_run(folder: Path) -> tuple[float, int]:
    (run,) = (folder / "work/combiner").iterdir()
    best = json.loads((run / "run.json").read_text())["bests"]["recall_mean"]
    return best["score"], best["epoch"]
