"""An invalid run.json or state file is named with what is wrong in it, and harms nothing."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Mlcl
from typer.testing import CliRunner
from world import world

from mlcl_cli.cli.app import app
from mlcl_cli.runs.checkpoints import load_state, save_state

Summary = dict[str, Any]
LONG = "9" * 5000


def best(change: Callable[[Summary], object]) -> Callable[[Summary], object]:
    return lambda summary: change(summary["bests"]["arithmetic_mean"])


def put(**values: Any) -> Callable[[Summary], object]:
    return lambda summary: summary.update(values)


EDITS: dict[str, Callable[[Summary], object]] = {
    "no kind": lambda summary: summary.pop("kind"),
    "no bests": lambda summary: summary.pop("bests"),
    "no clip": lambda summary: summary.pop("clip"),
    "no dataset": lambda summary: summary.pop("dataset"),
    "no created": lambda summary: summary.pop("created"),
    "kind of another program": put(kind="resnet"),
    "state unknown": put(state="paused"),
    "state is a list": put(state=["finished"]),
    "epoch as a string": put(epoch="2"),
    "epoch as a float": put(epoch=2.5),
    "epoch as a bool": put(epoch=True),
    "epoch negative": put(epoch=-1),
    "epochs zero": put(epochs=0),
    "epochs null": put(epochs=None),
    "created is a number": put(created=20260101),
    "created is not a time": put(created="yesterday"),
    "created without a zone": put(created="2026-01-01T00:00:00"),
    "dataset is a list": put(dataset=["cirr"]),
    "protocol is null": put(protocol=None),
    "clip is a list": put(clip=[]),
    "clip model is a number": lambda summary: summary["clip"].update(model=5),
    "clip without a fingerprint": lambda summary: summary["clip"].pop("fingerprint"),
    "image is a string": put(image="targetpad"),
    "versions are numbers": put(versions={"torch": 2}),
    "command is a list": put(command=["train-combiner"]),
    "identity is a string": put(identity="same"),
    "bests is a list": put(bests=[]),
    "bests hold a number": put(bests={"arithmetic_mean": 41.5}),
    "a metric's name is empty": lambda summary: summary["bests"].update({"": summary["bests"]["arithmetic_mean"]}),
    "a metric's name steers": lambda summary: summary["bests"].update({"\x1b[2J": summary["bests"]["arithmetic_mean"]}),
    "score as a string": best(lambda entry: entry.update(score="99")),
    "score is null": best(lambda entry: entry.update(score=None)),
    "score negative": best(lambda entry: entry.update(score=-1.0)),
    "score beyond percent": best(lambda entry: entry.update(score=1e300)),
    "best without a checkpoint": best(lambda entry: entry.pop("checkpoint")),
    "checkpoint climbs": best(lambda entry: entry.update(checkpoint="../../../other.safetensors")),
    "checkpoint is absolute": best(lambda entry: entry.update(checkpoint="/etc/passwd")),
    "checkpoint is another file": best(lambda entry: entry.update(checkpoint="metrics.jsonl")),
    "checkpoint is null": best(lambda entry: entry.update(checkpoint=None)),
    "best epoch zero": best(lambda entry: entry.update(epoch=0)),
    "metrics are strings": best(lambda entry: entry.update(metrics={"recall@1": "1"})),
    "metrics are a list": best(lambda entry: entry.update(metrics=[1.0])),
}
TEXTS: dict[str, Callable[[str], bytes]] = {
    "empty": lambda _: b"",
    "not JSON": lambda _: b"<html>404</html>",
    "cut": lambda text: text[: len(text) // 2].encode(),
    "a list": lambda text: f"[{text}]".encode(),
    "null": lambda _: b"null",
    "a number": lambda _: b"7",
    "an empty object": lambda _: b"{}",
    "not UTF-8": lambda text: text.encode().replace(b"cirr", b"c\xffrr"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "zeros": lambda _: bytes(1000),
    "nested deeply": lambda _: b"[" * 100_000,
    "nested deeply inside": lambda text: text.replace("{", '{"x": ' + "[" * 900 + "]" * 900 + ",", 1).encode(),
    "a key twice": lambda text: text.replace("{", '{"state": "finished",', 1).encode(),
    "score NaN": lambda text: text.replace('"score": ', '"score": NaN, "was": ', 1).encode(),
    "score infinite": lambda text: text.replace('"score": ', '"score": Infinity, "was": ', 1).encode(),
    "score beyond a double": lambda text: text.replace('"score": ', '"score": 1e999, "was": ', 1).encode(),
    "a number of 5,000 digits": lambda text: text.replace('"epoch": ', f'"epoch": {LONG}, "was": ', 1).encode(),
    "huge": lambda text: text.encode() + b" " * 17 * 2**20,
}


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


FILES: dict[str, Callable[[Path], None]] = {"FIFO": make_fifo, "folder": make_folder}
KINDS = [*EDITS, *TEXTS, *FILES]
COMMANDS = (
    ("evaluate",),
    ("train-combiner", "--resume"),
    ("report", "combiner/run"),
    ("report",),
    ("check", "--split", "val"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with one finished combiner, combiner/run."""
    folder = world(tmp_path_factory.mktemp("hostile"), "cirr", triplets=8)
    profile = str(folder / "mlcl.yaml")
    options = ("--epochs", "1", "--set", "combiner.augmented_views=1")
    result = CliRunner().invoke(app, ["train-combiner", "--profile", profile, *options])
    assert result.exit_code == 0, result.stderr
    (run,) = (folder / "work/combiner").iterdir()
    run.rename(run.with_name("run"))
    return folder


@pytest.fixture
def summary(trained: Path) -> Iterator[Path]:
    """Its run.json, which is put back afterwards."""
    path = trained / "work/combiner/run/run.json"
    content = path.read_bytes()
    yield path
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()
    path.write_bytes(content)
    shutil.rmtree(trained / "work/reports", ignore_errors=True)


def spoil(path: Path, kind: str) -> None:
    text = path.read_text()
    if kind in EDITS:
        content = json.loads(text)
        EDITS[kind](content)
        path.write_text(json.dumps(content))
    elif kind in TEXTS:
        path.write_bytes(TEXTS[kind](text))
    else:
        FILES[kind](path)


@pytest.mark.parametrize("kind", KINDS)
def test_invalid_summary_is_damaged_for_every_command(mlcl: Mlcl, trained: Path, summary: Path, kind: str) -> None:
    spoil(summary, kind)
    (listed,) = mlcl("runs", "--json", folder=trained).json["runs"]
    assert (listed["state"], listed["score"]) == ("damaged", None)
    shown = mlcl("runs", "show", "run", "--json", folder=trained).json
    assert "run.json: is not a valid run summary" in shown["problem"]
    for command in COMMANDS:
        outcome = mlcl(*command, folder=trained)
        assert outcome.code == 3, (command, outcome.err)
        where = outcome.out if command[0] == "check" else outcome.err
        (line,) = [line for line in where.splitlines() if "run.json" in line]
        assert "is not a valid run summary (" in line
        assert not any(not character.isprintable() for character in line)


def test_valid_summary_is_accepted(mlcl: Mlcl, trained: Path, summary: Path) -> None:
    assert mlcl("runs", "--json", folder=trained).json["runs"][0]["state"] == "finished"
    assert mlcl("runs", "show", "run", "--json", folder=trained).json["kind"] == "combiner"
    assert mlcl("evaluate", folder=trained).code == 0
    assert summary.is_file()


@pytest.fixture
def state(summary: Path) -> Iterator[Path]:
    """Its last state, of a run that was interrupted; put back afterwards."""
    summary.write_text(summary.read_text().replace('"state": "finished"', '"state": "interrupted"'))
    folder = summary.parent
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}
    yield folder / "last.safetensors"
    for path, content in before.items():
        path.unlink(missing_ok=True)
        path.write_bytes(content)


LOGS = ("metrics.jsonl", "metrics.csv", "times.jsonl")
STATES: dict[str, Callable[[Summary, Path], object]] = {
    "an absolute log": lambda about, victim: about["logs"].update({str(victim): 0}),
    "a log that climbs": lambda about, victim: about["logs"].update({f"../../../{victim.name}": 0}),
    "another file as a log": lambda about, _: about["logs"].update({"profile.yaml": 0}),
    "a negative length": lambda about, _: about["logs"].update({"metrics.csv": -5}),
    "a length as a string": lambda about, _: about["logs"].update({"metrics.csv": "0"}),
    "a length as a bool": lambda about, _: about["logs"].update({"metrics.csv": False}),
    "logs as a list": lambda about, _: about.update(logs=[*LOGS]),
    "no logs": lambda about, _: about.pop("logs"),
    "no bests": lambda about, _: about.pop("bests"),
    "a checkpoint that climbs": lambda about, victim: best_of(about).update(checkpoint=f"../../../{victim.name}"),
    "an absolute checkpoint": lambda about, victim: best_of(about).update(checkpoint=str(victim)),
    "another file as a checkpoint": lambda about, _: best_of(about).update(checkpoint="profile.yaml"),
    "a score as a string": lambda about, _: best_of(about).update(score="41"),
    "other metrics": lambda about, _: about["bests"].update({"recall_mean": best_of(about)}),
}


def best_of(about: Summary) -> Summary:
    entry: Summary = about["bests"]["arithmetic_mean"]
    return entry


@pytest.mark.parametrize("kind", STATES)
def test_invalid_state_is_named_and_changes_no_file(mlcl: Mlcl, trained: Path, state: Path, kind: str) -> None:
    victim = trained / "victim.txt"
    victim.write_text("precious")
    loaded, about = load_state(state)
    STATES[kind](about, victim)
    save_state(state, loaded, about)
    before = {path: path.read_bytes() for path in state.parent.iterdir() if path.name != ".lock"}
    outcome = mlcl("train-combiner", "--resume", "--epochs", "1", "--set", "combiner.augmented_views=1", folder=trained)
    assert outcome.code == 3, outcome.err
    assert f"{state}: " in outcome.err.splitlines()[-1]
    assert victim.read_text() == "precious"
    after = {path: path.read_bytes() for path in state.parent.iterdir() if path.name != ".lock"}
    assert before == after


@pytest.mark.parametrize("name", [*LOGS, "run.json", "previous.safetensors", "best.safetensors"])
def test_run_does_not_write_through_links(mlcl: Mlcl, trained: Path, state: Path, name: str) -> None:
    path, victim = state.with_name(name), trained / "victim.txt"
    victim.write_bytes(path.read_bytes() + b"more" if path.exists() else b"precious")
    content = victim.read_bytes()
    if name == "run.json":
        victim.write_bytes(content := content.removesuffix(b"more"))
    path.unlink(missing_ok=True)
    path.symlink_to(victim)
    try:
        outcome = mlcl(
            "train-combiner", "--resume", "--epochs", "1", "--set", "combiner.augmented_views=1", folder=trained
        )
    finally:
        path.unlink()
    assert outcome.code == 3, outcome.err
    assert str(path) in outcome.err.splitlines()[-1]
    assert victim.read_bytes() == content


def test_valid_state_is_resumed(mlcl: Mlcl, trained: Path, state: Path) -> None:
    options = ("--epochs", "1", "--set", "combiner.augmented_views=1")
    assert mlcl("train-combiner", "--resume", *options, folder=trained).code == 0
    assert json.loads(state.with_name("run.json").read_text())["state"] == "finished"
