"""A data set is one file and one entry: then every command knows it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Outcome
from world import PROFILE, picture, tiny_clip, write_json

from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.errors import UsageError
from mlcl_cli.progress import NoProgress
from mlcl_cli.workflows.demo import run_demo

HATS = """\
import json

from mlcl_cli.data.annotations import ImageName, Record, Text, read_records
from mlcl_cli.data.definition import DataSet, Preparation, Prepared
from mlcl_cli.data.layout import find_root, make_split
from mlcl_cli.data.protocols import SHOES
from mlcl_cli.data.records import QuerySet, Triplet

REMEDY = "Set roots.hats to the folder that contains annotations/, and run mlcl prepare-hats once"


class Hat(Record):
    reference: ImageName
    target: ImageName
    caption: Text


def triplet(record, _where):
    return Triplet(record.reference, record.target, (record.caption,), texts=(record.caption.upper(), "a hat"))


def read(root, split, folders, on_defect):
    annotations = find_root(root, "hats", ("annotations",), REMEDY) / "annotations"
    triplets = read_records(annotations / f"{split}.json", Hat, triplet, remedy=REMEDY, on_defect=on_defect)
    gallery = () if split == "train" else tuple(dict.fromkeys(name for t in triplets for name in t.images()))
    return make_split("hats", split, [QuerySet("hats", triplets, gallery)], lambda name: (folders["photos"] / name,))


def prepare(root, folders, _progress):
    raw = {split: folders["photos"] / f"{split}.txt" for split in ("train", "val")}
    contents = {root / "annotations" / f"{split}.json": file.read_bytes() for split, file in raw.items()}
    counts = {path.stem: len(json.loads(content)) for path, content in contents.items()}
    return Prepared(counts, counts, 0, contents)


DATASET = DataSet(
    name="hats",
    root="data/hats",
    read=read,
    splits=("train", "val"),
    protocols=(SHOES,),
    folders={"photos": "photos"},
    preparation=Preparation(
        command="prepare-hats",
        help="Turn the raw hats into triplets.",
        files=("annotations/train.json", "annotations/val.json"),
        prepare=prepare,
    ),
)
"""

# The one registration, before anything else is imported; then each command line, one after another.
MLCL_WITH_HATS = """\
import json, sys

import hats
from mlcl_cli.data.datasets import DATASETS

DATASETS["hats"] = hats.DATASET

from mlcl_cli.cli.app import app
from typer.testing import CliRunner

for command in json.load(sys.stdin):
    result = CliRunner().invoke(app, command)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    print(json.dumps([result.exit_code, result.stdout, result.stderr]))
"""

Run = Callable[..., list[Outcome]]


@pytest.fixture
def hats(tmp_path: Path) -> Path:
    """A small data set that mlcl does not know, and what its developer writes."""
    (tmp_path / "hats.py").write_text(HATS)
    (tmp_path / "mlcl_with_hats.py").write_text(MLCL_WITH_HATS)
    for split in ("train", "val"):
        names = [f"{split}-{number}.png" for number in range(10)]
        for number, name in enumerate(names):
            picture(tmp_path / "elsewhere" / name, 10 * number + len(split))
        records = [
            {"reference": one, "target": other, "caption": f"is {other}"}
            for one, other in zip(names, [*names[1:], names[0]], strict=True)
        ]
        write_json(tmp_path / f"elsewhere/{split}.txt", records)
    tiny_clip(tmp_path / "clip.pt")
    (tmp_path / "mlcl.yaml").write_text(PROFILE.format(dataset="hats") + "hats:\n  photos: elsewhere\n")
    return tmp_path


@pytest.fixture
def run(hats: Path) -> Run:
    """Runs command lines in a process that knows hats."""
    environment = {**os.environ, "COLUMNS": "200"}
    environment.pop("MLCL_PROFILE", None)

    def run(*commands: str) -> list[Outcome]:
        program = [sys.executable, "mlcl_with_hats.py"]
        lines = json.dumps([command.split() for command in commands])
        done = subprocess.run(
            program, cwd=hats, env=environment, input=lines, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return [Outcome(*json.loads(line)) for line in done.stdout.splitlines()]

    return run


def test_every_command_knows_a_new_dataset(run: Run, hats: Path) -> None:
    prepared, checked, tuned, trained, evaluated, report = run(
        "prepare-hats --json",
        "check --json",
        "finetune --encoder text --json",
        "train-combiner --json",
        "evaluate --json --ranks ranks.csv",
        "report --all --json --output report.html",
    )
    assert prepared.json["images"] == {"train": 10, "val": 10}
    findings = checked.json["findings"]
    assert checked.json["verdicts"] == {"finetune": "ok", "train-combiner": "ok", "evaluate": "ok"}, findings
    assert [finding for finding in findings if finding["check"] != "clip"] == []
    assert trained.json["dataset"] == tuned.json["dataset"] == "hats"
    assert evaluated.json["metrics"] == trained.json["metrics"]
    assert ",IS VAL-1.PNG," in (hats / "ranks.csv").read_text()
    assert report.json["command"] == "report"
    assert "is val-1.png" in (hats / "report.html").read_text().lower()


def test_profile_and_messages_know_a_new_dataset(run: Run, hats: Path) -> None:
    init, unknown, selected, submitted = run(
        "init --dataset hats --output new.yaml",
        "evaluate --set dataset=coats",
        "evaluate --set combiner.select_by=harmonic",
        "submit-cirr",
    )
    assert "set roots.hats in it, then run `mlcl check` and `mlcl prepare-hats`." in init.out
    text = (hats / "new.yaml").read_text()
    known = dict.fromkeys([*DATASETS, "hats"])
    assert f"# {' | '.join(known)}\n" in text
    assert "\n  hats: data/hats\n" in text
    assert "\n#   photos: data/hats/photos\n" in text
    assert f"one of {', '.join(known)}" in unknown.err
    assert "the data set is hats" in selected.err
    assert "submit-cirr is for cirr, but this profile's data set is hats" in submitted.err
    assert {unknown.code, selected.code, submitted.code} == {2}


def test_the_demo_does_not_draw_a_new_dataset(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the demo cannot draw hats"):
        run_demo(tmp_path / "demo", ["hats"], NoProgress(), lambda _: {})
    assert not (tmp_path / "demo").exists()
