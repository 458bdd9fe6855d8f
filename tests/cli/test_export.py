"""`mlcl export` keeps what the original format cannot hold, and destroys nothing."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Mlcl
from world import world

from mlcl_cli.runs.checkpoints import load_checkpoint
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.original_format import EXPORTED


def trained(mlcl: Mlcl, folder: Path, *settings: str) -> dict[str, Any]:
    if not (folder / "mlcl.yaml").exists():
        world(folder, "cirr")
    flags = [part for setting in settings for part in ("--set", f"combiner.{setting}")]
    result: dict[str, Any] = mlcl("train-combiner", *flags, "--json").json
    return result


def test_export_keeps_the_levels_and_warns_that_the_original_ignores_them(mlcl: Mlcl, tmp_path: Path) -> None:
    result = trained(mlcl, tmp_path, "levels=[cat,hybrid]")
    outcome = mlcl("export", result["best"]["checkpoint"], "out.pt", "--json").json
    assert outcome["files"] == ["out.pt", "out.json"]
    assert "sum, cat, hybrid" in outcome["warnings"][0]
    again = mlcl("evaluate", "--checkpoint", "out.pt", "--ranks", "again.csv", "--json").json
    mlcl("evaluate", "--checkpoint", result["best"]["checkpoint"], "--ranks", "first.csv")
    assert again["metrics"] == result["metrics"]
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "first.csv").read_text()
    about = load_checkpoint(tmp_path / "out.pt", Kind.COMBINER).about
    source = load_checkpoint(Path(result["best"]["checkpoint"])).about
    assert about.model_dump(include=set(EXPORTED)) == {**source.model_dump(include=set(EXPORTED)), "probe": None}


def test_description_of_other_weights_is_refused(mlcl: Mlcl, tmp_path: Path) -> None:
    first, second = (trained(mlcl, tmp_path, f"hidden_dim={size}") for size in (16, 8))
    mlcl("export", first["best"]["checkpoint"], "a.pt")
    mlcl("export", second["best"]["checkpoint"], "b.pt")
    (tmp_path / "a.json").write_bytes((tmp_path / "b.json").read_bytes())
    outcome = mlcl("evaluate", "--checkpoint", "a.pt")
    assert outcome.code == 3
    assert "a.json" in outcome.err
    assert "a.pt holds" in outcome.err
    for damage in ("{", '{"format": "mlcl export 1", "kind": "combiner", "fingerprint": 7}', "[" * 100_000):
        (tmp_path / "a.json").write_text(damage)
        outcome = mlcl("evaluate", "--checkpoint", "a.pt")
        assert outcome.code == 3
        assert "a.json: cannot be read" in outcome.err
    (tmp_path / "a.json").write_text('{"mine": true}')
    assert mlcl("evaluate", "--checkpoint", "a.pt").code == 0


def test_export_of_a_learned_temperature_without_sscl_has_all_that_the_original_loads(
    mlcl: Mlcl, tmp_path: Path
) -> None:
    whole = trained(mlcl, tmp_path)
    result = trained(mlcl, tmp_path, "sscl=[]")
    for name, run in (("whole.pt", whole), ("out.pt", result)):
        outcome = mlcl("export", run["best"]["checkpoint"], name, "--json").json
    assert "logit_scale_sl is added" in outcome["warnings"][0]
    keys = [set(torch.load(tmp_path / name, weights_only=True)["Combiner"]) for name in ("whole.pt", "out.pt")]
    assert keys[0] == keys[1]
    assert mlcl("evaluate", "--checkpoint", "out.pt", "--json").json["metrics"] == result["metrics"]
    high = trained(mlcl, tmp_path, "sscl=[]", "levels=[hybrid]")
    assert "cannot load it" in mlcl("export", high["best"]["checkpoint"], "high.pt", "--json").json["warnings"][0]


@pytest.mark.parametrize("name", ["out.onnx", "out", "out.pt.json", "out.safetensors"])
def test_other_formats_are_refused(mlcl: Mlcl, tmp_path: Path, name: str) -> None:
    outcome = mlcl("export", "none.safetensors", name)
    assert outcome.code == 2
    assert ".pt or .pth" in outcome.err
    assert not list(tmp_path.iterdir())


def test_export_never_replaces_its_source_or_a_foreign_json_file(mlcl: Mlcl, tmp_path: Path) -> None:
    result = trained(mlcl, tmp_path)
    source = tmp_path / "model.pt"
    assert mlcl("export", result["best"]["checkpoint"], "model.pt").code == 0
    os.link(source, tmp_path / "hard.pt")
    (tmp_path / "link.pt").symlink_to(source)
    before = source.read_bytes()
    for output in ("model.pt", "hard.pt", "link.pt", str(source)):
        outcome = mlcl("export", "model.pt", output, "--force")
        assert outcome.code == 2
        assert "is the checkpoint to export" in outcome.err
    assert source.read_bytes() == before
    (tmp_path / "other.json").write_text(json.dumps({"mine": 1}))
    assert "--force" in mlcl("export", "model.pt", "other.pt").err
    assert mlcl("export", "model.pt", "other.pt", "--force").code == 2
    assert json.loads((tmp_path / "other.json").read_text()) == {"mine": 1}
    assert not (tmp_path / "other.pt").exists()
    assert mlcl("export", "model.pt", "copy.pt").code == 0
    assert mlcl("export", "model.pt", "copy.pt").code == 2
    assert mlcl("export", "model.pt", "copy.pt", "--force").code == 0
    (tmp_path / "folder.pt").mkdir()
    assert mlcl("export", "model.pt", "folder.pt", "--force").code == 2
