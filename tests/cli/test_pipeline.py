"""The whole pipeline per data set, through the real command line, with nothing but mlcl.yaml in the folder."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from command_line import Mlcl
from world import world

from mlcl_cli.workflows.composers import COMPOSERS

METRICS = {
    "fashioniq": [f"{category}/recall@{k}" for category in ("dress", "shirt", "toptee") for k in (10, 50)]
    + ["average/recall@10", "average/recall@50", "average/recall"],
    "shoes": ["recall@1", "recall@10", "recall@50", "recall_mean"],
    "cirr": [f"recall@{k}" for k in (1, 5, 10, 50)]
    + [f"recall_subset@{k}" for k in (1, 2, 3)]
    + ["arithmetic_mean", "harmonic_mean", "geometric_mean", "mean(recall@5,recall_subset@1)"],
}


@pytest.mark.parametrize("dataset", METRICS)
def test_the_five_commands_run_and_agree(mlcl: Mlcl, tmp_path: Path, dataset: str) -> None:
    world(tmp_path, dataset)
    if dataset == "shoes":
        assert mlcl("prepare-shoes", "--json").json["images"] == {"train": 12, "val": 8}
    text = mlcl("finetune", "--encoder", "text", "--json").json
    image = mlcl("finetune", "--encoder", "image", "--json").json
    combiner = mlcl("train-combiner", "--json").json
    assert [result["command"] for result in (text, image, combiner)] == ["finetune", "finetune", "train-combiner"]
    for result in (text, image, combiner):
        run = Path(result["run"])
        assert list(result["metrics"]) == METRICS[dataset]
        assert result["best"]["score"] in result["metrics"].values()
        assert yaml.safe_load((run / "profile.yaml").read_text())["dataset"] == dataset
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
        assert [line["epoch"] for line in lines] == [int(row["epoch"]) for row in rows] == [1, 2]
        assert float(rows[0]["loss"]) == lines[0]["loss"]
        assert {"best.safetensors", "last.safetensors", "run.json"} <= {path.name for path in run.iterdir()}
    evaluated = mlcl("evaluate", "--json").json
    assert list(evaluated["metrics"]) == METRICS[dataset]
    assert evaluated["metrics"] == combiner["metrics"]
    assert evaluated["checkpoint"] == combiner["best"]["checkpoint"]
    assert evaluated["split"] == "val"
    for function in COMPOSERS:
        baseline = mlcl("evaluate", "--combining-function", function, "--json").json
        assert (baseline["combining_function"], baseline["checkpoint"]) == (function, None)


def test_image_tuning_starts_from_the_tuned_text_encoder(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "shoes")
    mlcl("prepare-shoes")
    first = mlcl("finetune", "--encoder", "text", "--json").json
    second = mlcl("finetune", "--encoder", "image")
    assert "the only candidate with only its text encoder tuned" in second.err
    assert Path(first["run"]).name in second.err
    third = mlcl("finetune", "--encoder", "text", "--from", "none")
    assert "--from is none" in third.err


def test_what_is_frozen_is_encoded_once(mlcl: Mlcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlcl_cli.models.encoder import Encoder

    world(tmp_path, "cirr")
    settings = ("--set", "combiner.augmented_views=2", "--set", "clip.checkpoint=none", "--json")
    mlcl("train-combiner", *settings)
    calls: list[str] = []
    monkeypatch.setattr(Encoder, "encode_images", lambda *_: calls.append("image"))
    monkeypatch.setattr(Encoder, "encode_texts", lambda *_: calls.append("text"))
    again = mlcl("train-combiner", "--epochs", "3", *settings).json
    mlcl("evaluate", "--set", "clip.checkpoint=none", "--json")
    assert calls == []
    assert again["epochs"] == 3


@pytest.mark.parametrize("encoder", ["text", "image", "both"])
def test_a_seed_decides_everything_on_the_cpu(mlcl: Mlcl, tmp_path: Path, encoder: str) -> None:
    results = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        world(folder, "shoes")
        mlcl("prepare-shoes", folder=folder)
        tuned = mlcl("finetune", "--encoder", encoder, "--json", folder=folder).json
        combined = mlcl("train-combiner", "--json", folder=folder).json
        runs = [Path(result["run"]) for result in (tuned, combined)]
        logs = [(run / "metrics.jsonl").read_bytes() for run in runs]
        summaries = [json.loads((run / "run.json").read_text())["bests"] for run in runs]
        results.append((logs, summaries))
    assert results[0] == results[1]


@pytest.mark.parametrize("encoder", ["text", "image"])
def test_only_the_chosen_encoder_is_trained(mlcl: Mlcl, tmp_path: Path, encoder: str) -> None:
    from mlcl_cli.runs.checkpoints import load_checkpoint
    from mlcl_cli.runs.description import Kind

    world(tmp_path, "cirr")
    result = mlcl("finetune", "--encoder", encoder, "--json").json
    before = torch.load(tmp_path / "clip.pt", weights_only=True)
    after = load_checkpoint(Path(result["run"]) / "last.safetensors", Kind.CLIP).state
    moved = {name.startswith("visual.") for name in before if not torch.equal(before[name], after[name])}
    assert moved == {encoder == "image"}


def test_submission_answers_every_query(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    mlcl("train-combiner")
    result = mlcl("submit-cirr", "--name", "first", "--json").json
    folder = tmp_path / "work/submissions/first"
    assert [Path(file) for file in result["files"]] == [
        folder / "recall_submission_first.json",
        folder / "recall_subset_submission_first.json",
    ]
    records = json.loads((tmp_path / "data/cirr/captions/cap.rc2.test1.json").read_text())
    for file, length in zip(result["files"], (50, 3), strict=True):
        submission = json.loads(Path(file).read_text())
        assert submission.pop("version") == "rc2"
        assert submission.pop("metric") in file
        assert set(submission) == {str(record["pairid"]) for record in records}
        for record in records:
            answer = submission[str(record["pairid"])]
            assert len(set(answer)) == length
            assert record["reference"] not in answer
            assert length == 50 or set(answer) < set(record["img_set"]["members"])
    assert result["bytes"] == [Path(file).stat().st_size for file in result["files"]]
    assert result["queries"] == len(records)


def test_all_three_bests_of_cirr_are_kept(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    run = Path(mlcl("train-combiner", "--json").json["run"])
    bests = json.loads((run / "run.json").read_text())["bests"]
    assert list(bests) == ["arithmetic_mean", "harmonic_mean", "geometric_mean"]
    assert all((run / best["checkpoint"]).exists() for best in bests.values())
    chosen = mlcl("evaluate", "--set", "combiner.select_by=geometric", "--json").json
    assert chosen["checkpoint"] == str(run / "best-geometric_mean.safetensors")


def test_levels_can_be_turned_off(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    high_alone = ("--set", "combiner.levels=[hybrid]", "--set", "combiner.sscl=[]")
    result = mlcl("train-combiner", *high_alone, "--set", "combiner.learned_temperature=false", "--json").json
    mlcl("export", result["best"]["checkpoint"], "clip4cir.pt")
    exported = torch.load(tmp_path / "clip4cir.pt", weights_only=True)["Combiner"]
    layers = ("text_projection_layer", "image_projection_layer", "combiner_layer", "output_layer")
    layers += ("dynamic_scalar.0", "dynamic_scalar.3")
    assert set(exported) == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert mlcl("evaluate", "--checkpoint", "clip4cir.pt", "--json").json["metrics"] == result["metrics"]
    (tmp_path / "clip4cir.json").unlink()
    again = mlcl("evaluate", "--checkpoint", "clip4cir.pt", "--json")
    assert "does not record which CLIP" in again.err
    assert again.json["metrics"] == result["metrics"]


def test_an_exported_clip_is_an_original_checkpoint(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    tuned = mlcl("finetune", "--encoder", "text", "--json").json
    mlcl("export", tuned["best"]["checkpoint"], "tuned.pt")
    original = mlcl("evaluate", "--combining-function", "sum", "--set", "clip.checkpoint=tuned.pt", "--json").json
    assert original["metrics"] == tuned["metrics"]


def test_fashioniq_has_two_galleries(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "fashioniq", triplets=8, images=30)
    original = mlcl("evaluate", "--combining-function", "sum", "--json").json
    small = mlcl("evaluate", "--combining-function", "sum", "--gallery", "val", "--json").json
    assert (original["protocol"], small["protocol"]) == ("fashioniq-original", "fashioniq-val")
    assert original["gallery"] == dict.fromkeys(("dress", "shirt", "toptee"), 30)
    assert all(size < 20 for size in small["gallery"].values())


def test_the_table_names_the_protocol(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    outcome = mlcl("evaluate", "--combining-function", "sum")
    assert "protocol cirr-val" in outcome.out
    assert "arithmetic_mean" in outcome.out
    assert "Profile:" in outcome.err
    assert "CLIP:" in outcome.err


def test_a_moved_folder_keeps_its_tuned_clip_and_its_runs(mlcl: Mlcl, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    world(before, "cirr")
    tuned = mlcl("finetune", "--encoder", "text", "--json", folder=before).json
    trained = mlcl("train-combiner", "--json", folder=before).json
    before.rename(after)
    outcome = mlcl("evaluate", "--json", folder=after)
    assert outcome.json["metrics"] == trained["metrics"]
    again = mlcl("train-combiner", "--epochs", "1", folder=after)
    assert f"tuned: finetune/{Path(tuned['run']).name}" in again.err
