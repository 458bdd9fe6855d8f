"""Wrong input through the real command line: one clear line, the right exit code, nothing half-written."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Mlcl, Outcome
from world import tiny_clip, world, write_json

EVALUATE = ("evaluate", "--combining-function", "sum")


def refused(outcome: Outcome, code: int, *words: str) -> None:
    """One line on stderr that starts with `error:` and holds `words`; nothing on stdout."""
    assert outcome.code == code, outcome.err
    lines = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, outcome.err
    for word in words:
        assert word in outcome.err, outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


@pytest.fixture
def shoe_world(mlcl: Mlcl, tmp_path: Path) -> Path:
    world(tmp_path, "shoes")
    assert mlcl("prepare-shoes").code == 0
    return tmp_path


def test_a_missing_profile_names_init(mlcl: Mlcl, tmp_path: Path) -> None:
    refused(mlcl("evaluate"), 2, "mlcl init")
    assert files(tmp_path) == set()


def test_an_unknown_key_and_a_wrong_type_are_reported_together(mlcl: Mlcl, tmp_path: Path) -> None:
    (tmp_path / "mlcl.yaml").write_text("dataset: cirr\ncombiner:\n  epohcs: 3\n  batch_size: many\n")
    outcome = mlcl("train-combiner")
    assert outcome.code == 2
    assert "mlcl.yaml:3" in outcome.err
    assert "did you mean" in outcome.err
    assert "mlcl.yaml:4" in outcome.err
    assert "Traceback" not in outcome.err


def test_an_unknown_key_of_set_is_refused(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    refused(mlcl("evaluate", "--set", "combiner.epohcs=3"), 2, "--set", "epochs")


def test_a_missing_root_is_named(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    shutil.rmtree(tmp_path / "data")
    refused(mlcl(*EVALUATE), 3, str(tmp_path / "data"))


@pytest.mark.parametrize("dataset", ["fashioniq", "shoes", "cirr"])
def test_a_root_with_another_layout_is_refused(mlcl: Mlcl, tmp_path: Path, dataset: str) -> None:
    world(tmp_path, dataset)
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data/holiday").mkdir(parents=True)
    refused(mlcl(*EVALUATE), 3, "data")


def test_a_missing_annotation_file_is_named(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    (tmp_path / "data/cirr/captions/cap.rc2.val.json").unlink()
    refused(mlcl(*EVALUATE), 3, "cap.rc2.val.json")


def test_an_annotation_file_that_is_not_json_is_named(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    (tmp_path / "data/cirr/captions/cap.rc2.val.json").write_text("<html>404</html>")
    refused(mlcl(*EVALUATE), 3, "cap.rc2.val.json", "JSON")


def test_a_record_without_a_field_is_named(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    edit(tmp_path / "data/cirr/captions/cap.rc2.val.json", lambda records: records[2].pop("caption") and None)
    refused(mlcl(*EVALUATE), 3, "cap.rc2.val.json", "3", "caption")


def break_image(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "zero-byte":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-30])
    else:
        path.write_text("not an image")


@pytest.mark.parametrize("how", ["missing", "zero-byte", "truncated", "text"])
@pytest.mark.parametrize("command", [("finetune", "--encoder", "text"), ("finetune", "--encoder", "image"), EVALUATE])
def test_a_bad_image_stops_the_command(mlcl: Mlcl, shoe_world: Path, how: str, command: tuple[str, ...]) -> None:
    names = json.loads((shoe_world / "data/annotations/split.val.json").read_text())
    path = shoe_world / "data/images" / names[0]
    break_image(path, how)
    refused(mlcl(*command), 3, "1 image", path.name, "bad_images")
    assert not (shoe_world / "work/finetune").exists()


def test_all_bad_images_are_listed_together(mlcl: Mlcl, shoe_world: Path) -> None:
    paths = sorted((shoe_world / "data/images").rglob("*.jpg"))[:3]
    for path, how in zip(paths, ("missing", "zero-byte", "text"), strict=True):
        break_image(path, how)
    outcome = mlcl("train-combiner")
    refused(outcome, 3, "3 images", *(path.name for path in paths))


def test_dropped_images_are_counted_listed_and_labeled(mlcl: Mlcl, shoe_world: Path) -> None:
    for split in ("train", "val"):
        names = json.loads((shoe_world / f"data/annotations/split.{split}.json").read_text())
        break_image(shoe_world / "data/images" / names[0], "missing")
    drop = ("--set", "bad_images=drop", "--set", "combiner.batch_size=4")
    result = mlcl("train-combiner", *drop, "--json")
    assert "pruned gallery" in result.json["protocol"]
    assert "dropped" in result.err
    run = Path(result.json["run"])
    summary = json.loads((run / "run.json").read_text())
    assert (summary["protocol"], summary["pruned"]) == ("shoes", True)
    assert {Path(bad["image"]).name for bad in json.loads((run / "dropped.json").read_text())} == {
        "img_womens_clogs_0.jpg",
        "img_womens_clogs_12.jpg",
    }
    evaluated = mlcl("evaluate", *drop, "--json").json
    assert evaluated["protocol"] == "shoes (pruned gallery)"
    assert evaluated["gallery"] == 7
    assert evaluated["metrics"] == result.json["metrics"]
    assert "protocol shoes (pruned gallery)" in Path(mlcl("report", "--json").json["file"]).read_text()


def test_a_submission_is_never_pruned(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    break_image(tmp_path / "data/test1/test1-3-img0.png", "missing")
    outcome = mlcl("submit-cirr", "--combining-function", "sum", "--set", "bad_images=drop")
    refused(outcome, 3, "test1-3-img0", "every query")
    assert not (tmp_path / "work/submissions").exists()


def test_an_image_name_outside_the_root_is_refused(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    places = tmp_path / "data/cirr/image_splits/split.rc2.val.json"
    edit(places, lambda value: value.update({"val-0-img0": "../../secret.png"}))
    refused(mlcl(*EVALUATE), 3, "secret.png")


def test_a_triplet_with_an_image_of_no_split_is_refused(mlcl: Mlcl, shoe_world: Path) -> None:
    triplets = shoe_world / "data/annotations/triplet.val.json"
    edit(triplets, lambda records: records[1].update(ImageName="womens/clogs/0/unknown.jpg"))
    refused(mlcl(*EVALUATE), 3, "unknown.jpg", "split")


def test_an_unknown_clip_name_lists_the_known_ones(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    refused(mlcl(*EVALUATE, "--set", "clip.model=RN50x5"), 2, "RN50x4")


def test_a_missing_or_invalid_clip_file_is_named(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    refused(mlcl(*EVALUATE, "--set", "clip.model=none.pt"), 3, "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    refused(mlcl(*EVALUATE, "--set", "clip.model=text.pt"), 3, "text.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pt")
    refused(mlcl(*EVALUATE, "--set", "clip.model=other.pt"), 3, "other.pt", "not CLIP's")


def test_a_checkpoint_of_the_wrong_kind_is_refused(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    tuned = mlcl("finetune", "--encoder", "text", "--json").json["best"]["checkpoint"]
    refused(mlcl("evaluate", "--checkpoint", tuned), 3, "holds a CLIP, expected a combiner")
    combiner = mlcl("train-combiner", "--json").json["best"]["checkpoint"]
    refused(mlcl(*EVALUATE, "--set", f"clip.checkpoint={combiner}"), 3, "holds a combiner, expected a CLIP")


def test_a_tuned_clip_of_another_size_is_refused(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    other = tiny_clip(tmp_path / "other.pt", embed_dim=24)
    refused(mlcl(*EVALUATE, "--set", f"clip.checkpoint={other}"), 3, "belong to a different CLIP")


def test_a_combiner_trained_on_another_clip_is_refused(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    assert mlcl("train-combiner").code == 0
    other = tiny_clip(tmp_path / "other.pt", seed=1)
    refused(mlcl("evaluate", "--set", f"clip.model={other}"), 3, "trained on a different CLIP")
    refused(mlcl("submit-cirr", "--set", f"clip.model={other}"), 3, "trained on a different CLIP")
    assert not (tmp_path / "work/submissions").exists()


def test_a_combiner_trained_with_another_transform_is_refused(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    assert mlcl("train-combiner").code == 0
    refused(mlcl("evaluate", "--set", "image.transform=squarepad"), 3, "squarepad")


def test_a_missing_combiner_names_the_command_that_trains_one(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    refused(mlcl("evaluate"), 3, "mlcl train-combiner")


def test_an_empty_split_is_refused(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    write_json(tmp_path / "data/cirr/captions/cap.rc2.val.json", [])
    refused(mlcl(*EVALUATE), 3, "cap.rc2.val.json")


@pytest.mark.parametrize("command", [("finetune", "--encoder", "text"), ("train-combiner",)])
def test_a_batch_larger_than_the_data_set_is_refused(mlcl: Mlcl, tmp_path: Path, command: tuple[str, ...]) -> None:
    world(tmp_path, "cirr")
    refused(mlcl(*command, "--batch-size", "13"), 2, "batch_size 13", "12")
    assert not list((tmp_path / "work").glob("*/*/run.json"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_missing_cuda_is_a_machine_error(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    refused(mlcl(*EVALUATE, "--set", "device=cuda"), 4, "CUDA")


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self").exists(), reason="needs a folder that is not writable")
def test_an_unwritable_workspace_is_a_machine_error(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    (tmp_path / "taken").write_text("a file, not a folder")
    refused(mlcl(*EVALUATE, "--set", "workspace=taken"), 4, "taken")
    refused(mlcl("train-combiner", "--set", "workspace=/proc/mlcl"), 4, "/proc/mlcl")


def test_scores_that_are_not_finite_are_refused(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    state = torch.load(tmp_path / "clip.pt", weights_only=True)
    state["text_projection"].fill_(torch.nan)
    torch.save(state, tmp_path / "clip.pt")
    refused(mlcl(*EVALUATE), 3, "not finite")


def test_a_loss_that_is_not_finite_stops_training(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    refused(mlcl("finetune", "--encoder", "text", "--learning-rate", "1e30"), 5, "not finite", "epoch")


def test_prepare_shoes_names_missing_files_and_writes_nothing(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "shoes")
    paths = sorted((tmp_path / "data/images").rglob("*.jpg"))[:2]
    for path in paths:
        path.unlink()
    before = files(tmp_path)
    refused(mlcl("prepare-shoes"), 3, "2", *(path.name for path in paths))
    assert files(tmp_path) == before


def test_init_never_overwrites(mlcl: Mlcl, tmp_path: Path) -> None:
    assert mlcl("init", "--dataset", "cirr").code == 0
    first = (tmp_path / "mlcl.yaml").read_text()
    refused(mlcl("init", "--dataset", "shoes"), 2, "--force")
    assert (tmp_path / "mlcl.yaml").read_text() == first
    assert mlcl("init", "--dataset", "shoes", "--force").code == 0
    assert "dataset: shoes" in (tmp_path / "mlcl.yaml").read_text()


def test_a_submission_for_another_data_set_is_refused(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "fashioniq")
    refused(mlcl("submit-cirr"), 2, "fashioniq")


def test_a_submission_name_is_not_a_path(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    refused(mlcl("submit-cirr", "--name", "../up"), 2, "../up")


def test_an_export_never_overwrites(mlcl: Mlcl, tmp_path: Path) -> None:
    (tmp_path / "there.pt").write_bytes(b"precious")
    refused(mlcl("export", "none.safetensors", "there.pt"), 2, "--force")
    refused(mlcl("export", "none.safetensors", "new.pt"), 3, "does not exist")
    assert files(tmp_path) == {tmp_path / "there.pt"}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train-combiner --epochs abc", ("--epochs", "'abc'", "integer")),
        ("train-combiner --learning-rate fast", ("--learning-rate", "'fast'")),
        ("report --queries x", ("--queries", "'x'", "integer")),
    ],
)
def test_an_option_that_is_not_a_number_shows_its_value(mlcl: Mlcl, command: str, words: tuple[str, ...]) -> None:
    outcome = mlcl(*command.split())
    assert outcome.code == 2
    assert all(word in outcome.err for word in words)
    assert "unable to parse" not in outcome.err


def test_a_missing_profile_of_the_environment_names_the_variable(
    mlcl: Mlcl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLCL_PROFILE", "nowhere.yaml")
    refused(mlcl("evaluate"), 2, f"{tmp_path}/nowhere.yaml: the profile that $MLCL_PROFILE names does not exist")


@pytest.mark.parametrize("exists", [True, False])
def test_init_does_not_write_a_file_for_a_folder(mlcl: Mlcl, tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "d").mkdir()
    refused(mlcl("init", "--output", "d/"), 2, "d/: is a folder. Name a file in it: d/mlcl.yaml")
    assert (tmp_path / "d").exists() is exists


def test_findings_go_to_a_file_whose_ending_says_what_it_is(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=8)
    refused(mlcl("check", "--output", "a.txt"), 2, "a.txt: must end in .json or .csv")
    assert "Findings: a.csv" in mlcl("check", "--output", "a.csv").err
    assert (tmp_path / "a.csv").read_text().startswith("check,severity,")


def test_a_path_that_cannot_exist_is_not_about_space(mlcl: Mlcl, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = mlcl("init", "--output", "file/x.yaml")
    assert outcome.code == 4
    assert outcome.err.rstrip().endswith("Choose another path; existing files are unchanged")
