"""What people read on a terminal of 80 columns and in a pipe: whole paths, and counts with their right plural."""

import re
from pathlib import Path

import pytest
from command_line import Mlcl, Outcome
from world import world

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PATH = re.compile(r"/[\w./-]+")
COMMANDS = ["check", "evaluate --combining-function sum", "evaluate --checkpoint nothing/there.safetensors", "runs"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return world(tmp_path / "a-folder-with-a-rather-long-name" / "and-one-below-it", "cirr")


@pytest.mark.parametrize("command", COMMANDS)
def test_terminal_lines_break_between_words(
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
    """The printed paths below the folder."""
    return {path for path in PATH.findall(ESCAPE.sub("", outcome.out + outcome.err)) if "rather-long-name" in path}


def test_error_in_a_pipe_is_one_line(mlcl: Mlcl, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = mlcl("evaluate", "--quiet", "--checkpoint", "nothing/there.safetensors", folder=folder)
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize("terminal", [False, True])
def test_names_with_colons_are_not_emoji(
    mlcl: Mlcl, folder: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    outcome = mlcl("evaluate", "--checkpoint", "a:smile:b.safetensors", folder=folder)
    assert "a:smile:b.safetensors" in ESCAPE.sub("", outcome.err)


def test_count_of_one_is_singular(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=1)
    (tmp_path / "data/dev/val-0-img0.png").unlink()
    (tmp_path / "data/dev/val-0-img0.png").write_text("no picture")
    text = "".join(
        outcome.out + outcome.err
        for outcome in (
            mlcl("check"),
            mlcl("train-combiner"),
            mlcl("evaluate", "--combining-function", "sum", "--set", "bad_images=drop"),
            mlcl("evaluate", "--combining-function", "sum"),
        )
    )
    assert "1 triplet from" in text
    assert "1 training triplet." in text
    assert not re.search(r"\b1 (?!of)\w*s\b", text), re.findall(r".*\b1 (?!of)\w*s\b.*", text)


@pytest.mark.parametrize(
    "command", ["train-combiner --epochs 0", "finetune --batch-size 0", "finetune --set workers=-1"]
)
def test_invalid_value_names_the_option_as_typed(mlcl: Mlcl, folder: Path, command: str) -> None:
    option, value = command.split()[1:]
    outcome = mlcl(*command.split(), folder=folder)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {option} {value}: must be ")
    assert "combiner." not in outcome.err


def test_best_checkpoints_have_a_line_each_and_sizes_binary_units(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=8)
    assert mlcl("train-combiner", "--epochs", "1", "--set", "combiner.augmented_views=1").code == 0
    bests = mlcl("runs", "show", "cirr", "--json").json["bests"]
    assert len(bests) > 1
    lines = mlcl("runs", "show", "cirr").out.splitlines()
    start = lines.index("bests: ") + 1
    for line, (metric, best) in zip(lines[start:], bests.items(), strict=False):
        assert line.startswith(f"  {metric}: epoch 1, score {best['score']:.2f}, checkpoint {best['checkpoint']}, ")
    for text in (mlcl("runs").out, mlcl("runs", "rm", "cirr").out):
        assert re.search(r"\d [KM]iB\b", text)
