"""What people read on a terminal of 80 columns and in a pipe: whole paths, and counts with their right plural."""

import re
from pathlib import Path

import pytest
from conftest import Mlcl, Outcome
from world import world

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PATH = re.compile(r"/[\w./-]+")
COMMANDS = ["check", "evaluate --combining-function sum", "evaluate --checkpoint nothing/there.safetensors", "runs"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return world(tmp_path / "a-folder-with-a-rather-long-name" / "and-one-below-it", "cirr")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_terminal_breaks_lines_between_words(
    mlcl: Mlcl, folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    piped = mlcl(*command.split(), folder=folder)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    shown = mlcl(*command.split(), folder=folder)
    assert paths(shown) == paths(piped)
    for line in ESCAPE.sub("", shown.out + shown.err).replace("\r", "\n").splitlines():
        assert len(line) <= 80 or " " not in line


def paths(outcome: Outcome) -> set[str]:
    """The paths below the folder, as they are printed."""
    return {path for path in PATH.findall(ESCAPE.sub("", outcome.out + outcome.err)) if "rather-long-name" in path}


def test_an_error_in_a_pipe_is_one_line(mlcl: Mlcl, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = mlcl("evaluate", "--quiet", "--checkpoint", "nothing/there.safetensors", folder=folder)
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize("terminal", [False, True])
def test_names_with_colons_stay_as_they_are(
    mlcl: Mlcl, folder: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    outcome = mlcl("evaluate", "--checkpoint", "a:smile:b.safetensors", folder=folder)
    assert "a:smile:b.safetensors" in ESCAPE.sub("", outcome.err)


def test_one_is_singular(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=1)
    (tmp_path / "data/dev/val-0-img0.png").unlink()
    (tmp_path / "data/dev/val-0-img0.png").write_text("no picture")
    said = "".join(
        outcome.out + outcome.err
        for outcome in (
            mlcl("check"),
            mlcl("train-combiner"),
            mlcl("evaluate", "--combining-function", "sum", "--set", "bad_images=drop"),
            mlcl("evaluate", "--combining-function", "sum"),
        )
    )
    assert "1 triplet from" in said
    assert "1 training triplet." in said
    assert not re.search(r"\b1 (?!of)\w*s\b", said), re.findall(r".*\b1 (?!of)\w*s\b.*", said)
