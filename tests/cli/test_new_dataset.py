"""A data set that a developer adds as README says works in every command."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Literal, cast

import pytest
from conftest import Mlcl
from pydantic import Field
from world import picture, tiny_clip, write_json

from mlcl_cli.config.schema import Profile, Roots
from mlcl_cli.config.types import FilePath
from mlcl_cli.data.annotations import OnDefect, read_records, refuse
from mlcl_cli.data.captions import RULES, CaptionRule, as_annotated
from mlcl_cli.data.datasets import DATASETS, DataSet
from mlcl_cli.data.layout import make_split
from mlcl_cli.data.protocols import SHOES
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.errors import UsageError
from mlcl_cli.progress import NoProgress
from mlcl_cli.workflows.demo import run_demo

PROFILE = "dataset: hats\nroots:\n  hats: data\nworkspace: work\ndevice: cpu\nclip:\n  model: clip.pt\n"


def read_hats(root: Path, split: str, images: Path | None = None, on_defect: OnDefect = refuse) -> Split:
    records = read_records(root / f"{split}.json", on_defect=on_defect)
    triplets = tuple(Triplet(r.image("reference"), r.image("target"), (r.text("caption"),)) for r in records)
    gallery = tuple(dict.fromkeys(name for triplet in triplets for name in (triplet.reference, triplet.target or "")))
    folder = images or root
    part = QuerySet("hats", triplets, () if split == "train" else gallery)
    return make_split("hats", split, [part], lambda name: folder / name)


class HatRoots(Roots):
    hats: FilePath = Path("data/hats")


class HatProfile(Profile):
    dataset: Literal["fashioniq", "shoes", "cirr", "hats"]  # type: ignore[assignment]
    roots: HatRoots = Field({}, validate_default=True)


@pytest.fixture
def hats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """README, "Add a data set", and a small one on disk."""
    added = DataSet(read_hats, ("train", "val"), {}, {"original": SHOES})
    monkeypatch.setitem(cast("dict[str, DataSet]", DATASETS), "hats", added)
    monkeypatch.setitem(cast("dict[str, CaptionRule]", RULES), "hats", as_annotated)
    monkeypatch.setattr("mlcl_cli.config.load.Profile", HatProfile)
    for split in ("train", "val"):
        names = [f"{split}-{number}.png" for number in range(6)]
        for number, name in enumerate(names):
            picture(tmp_path / "data" / name, 10 * number + len(split))
        records = [
            {"reference": one, "target": other, "caption": f"is {other}"}
            for one, other in zip(names, [*names[1:], names[0]], strict=True)
        ]
        write_json(tmp_path / f"data/{split}.json", records)
    tiny_clip(tmp_path / "clip.pt")
    (tmp_path / "mlcl.yaml").write_text(PROFILE)


@pytest.mark.usefixtures("hats")
def test_check_and_evaluate_accept_a_new_dataset(mlcl: Mlcl) -> None:
    batches = ("--set", "finetune.batch_size=2", "--set", "combiner.batch_size=2")
    found = mlcl("check", "--json", *batches).json
    assert found["verdicts"] == {"finetune": "ok", "train-combiner": "ok", "evaluate": "ok"}, found["findings"]
    assert [finding for finding in found["findings"] if finding["check"] != "clip"] == []
    metrics = mlcl("evaluate", "--combining-function", "sum", "--json").json["metrics"]
    assert metrics["recall@10"] == 100


def test_the_demo_does_not_try_to_draw_a_new_dataset(
    mlcl: Mlcl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class MoreNames(StrEnum):
        FASHIONIQ = "fashioniq"
        SHOES = "shoes"
        CIRR = "cirr"
        HATS = "hats"

    asked: list[list[str]] = []
    monkeypatch.setattr("mlcl_cli.cli.app.DatasetName", MoreNames)

    def stop(_folder: Path, datasets: list[str], *_: object) -> None:
        asked.append(datasets)
        raise UsageError("stopped")

    monkeypatch.setattr("mlcl_cli.workflows.demo.run_demo", stop)
    assert mlcl("demo").code == 2
    assert "hats" not in json.dumps(asked)
    with pytest.raises(UsageError, match="the demo cannot draw hats"):
        run_demo(tmp_path / "demo", ["hats"], NoProgress(), lambda _: {})
    assert not (tmp_path / "demo").exists()
