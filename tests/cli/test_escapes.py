"""Names and file contents reach the terminal escaped: they cannot control it or break a line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Mlcl, Outcome
from world import world

from mlcl_cli.atomic_files import to_json
from mlcl_cli.streams import printable

HOSTILE = "a\x1b[2J\r\n\u202eb\x7f\x9b1m\u2028[red]:car:" + os.fsdecode(b"\xff")
SHOWN = r"a\x1b[2J\r\n\u202eb\x7f\x9b1m\u2028[red]:car:\udcff"
NAME = HOSTILE.replace("\udcff", "")  # annotations hold no lone surrogates
COLOR = re.compile(r"\x1b\[[0-9;]*m")


def clean(outcome: Outcome) -> str:
    """All that was printed, which holds no control character but line ends."""
    text = outcome.out + outcome.err
    assert "Traceback" not in text
    assert not [character for character in text if not (character.isprintable() or character == "\n")], text
    return text


def test_only_unsafe_characters_are_escaped() -> None:
    assert printable(HOSTILE) == SHOWN
    assert printable("naïve 漢字 \U0001f600 שלום C:\\x") == "naïve 漢字 \U0001f600 שלום C:\\x"


def test_json_with_escapes_reads_back_equal() -> None:
    value = {HOSTILE: [HOSTILE, {"n": 1}]}
    for indent in (None, 2):
        text = to_json(value, indent=indent).decode()
        assert json.loads(text) == value
        assert all(character.isprintable() or character == "\n" for character in text)


def test_image_name_is_escaped(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    path = tmp_path / "data/cirr/image_splits/split.rc2.val.json"
    places = json.loads(path.read_text())
    places["val-0-img0"] = f"./dev/{NAME}.png"
    path.write_text(json.dumps(places))
    outcome = mlcl("evaluate", "--combining-function", "sum")
    assert outcome.code == 3
    assert f"{printable(NAME)}.png" in clean(outcome)
    assert len([line for line in outcome.err.splitlines() if line.startswith("error:")]) == 1
    outcome = mlcl("check", "--split", "val")
    assert f"{printable(NAME)}.png" in clean(outcome)
    outcome = mlcl("check", "--split", "val", "--json")
    clean(outcome)
    assert any(NAME in finding["where"] for finding in json.loads(outcome.out)["findings"])


def test_run_name_is_escaped(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=8)
    assert mlcl("train-combiner", "--epochs", "1", "--set", "combiner.augmented_views=1").code == 0
    (run,) = (tmp_path / "work/combiner").iterdir()
    run = run.rename(run.with_name(HOSTILE))
    assert SHOWN in clean(mlcl("runs"))
    outcome = mlcl("runs", "--json")
    clean(outcome)
    assert outcome.json["runs"][0]["name"] == HOSTILE
    assert SHOWN in clean(mlcl("runs", "show", HOSTILE))
    assert SHOWN in clean(mlcl("evaluate"))
    assert SHOWN in clean(mlcl("runs", "rm", HOSTILE))  # asks, and gets no answer
    assert SHOWN in clean(mlcl("runs", "rm", HOSTILE, "--yes"))
    assert not run.exists()


def test_folder_name_is_escaped(mlcl: Mlcl, tmp_path: Path) -> None:
    folder = world(tmp_path / NAME, "cirr", triplets=8)
    assert r"a\x1b[2J\r\n\u202eb" in clean(mlcl("train-combiner", "--epochs", "1", folder=folder))
    assert r"a\x1b[2J\r\n\u202eb" in clean(mlcl("report", folder=folder))
    assert r"a\x1b[2J\r\n\u202eb" in clean(mlcl("init", "--output", str(folder / "new.yaml"), folder=folder))


def test_each_profile_error_is_one_line(mlcl: Mlcl, tmp_path: Path) -> None:
    path = tmp_path / f"{HOSTILE}.yaml"
    path.write_text("dataset: cirr\nseeds: 1\ncombiner:\n  epohcs: 3\n")
    outcome = mlcl("evaluate", "--profile", str(path), "--set", f"{HOSTILE}=1")
    assert outcome.code == 2
    clean(outcome)
    assert [line.count(f"{SHOWN}.yaml:") for line in outcome.err.splitlines()] == [1, 1, 0]


def test_terminal_gets_no_escape_sequences_but_colors(
    mlcl: Mlcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    outcome = mlcl("evaluate", "--profile", f"{HOSTILE}.yaml", folder=tmp_path)
    assert f"{SHOWN}.yaml" in COLOR.sub("", outcome.err)
    assert "\x1b" not in COLOR.sub("", outcome.err)


def test_unexpected_error_is_escaped() -> None:
    program = (
        "import sys, mlcl_cli.config; sys.argv = ['mlcl', 'evaluate']\n"
        "def broken(*_): raise ZeroDivisionError('a\\x1b[2J\\nb')\n"
        "mlcl_cli.config.find_profile = broken\n"
        "from mlcl_cli.cli.app import main; main()\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.stderr.splitlines() == [
        r"error: ZeroDivisionError: a\x1b[2J\nb. This is a bug in mlcl; --debug shows where"
    ]
