"""CIRCO through the real command line: no training split, a model trained elsewhere, the file for the server."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import Mlcl
from world import PROFILE, circo, tiny_clip, world, write_json

METRICS = [f"{kind}@{k}" for kind in ("recall", "map") for k in (5, 10, 25, 50)]
METRICS += ["map@10/addition", "map@10/cardinality", "map@10/viewpoint"]
LISTING = "data/COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return world(tmp_path, "circo")


@pytest.fixture
def trained(cirr_runs: Path, tmp_path: Path) -> list[str]:
    """CIRCO beside a combiner and the CLIP that belongs to it, both trained on CIRR; the options that name them."""
    circo(tmp_path / "data")
    tiny_clip(tmp_path / "clip.pt")
    (tmp_path / "mlcl.yaml").write_text(PROFILE.format(dataset="circo"))
    (combiner,) = (cirr_runs / "work/combiner").glob("*/best.safetensors")
    (clip,) = (cirr_runs / "work/finetune").glob("*/best.safetensors")
    return ["--checkpoint", str(combiner), "--set", f"clip.checkpoint={clip}"]


@pytest.mark.parametrize("command", [("finetune", "--encoder", "text"), ("train-combiner",), ("finetune", "--dry-run")])
def test_training_is_refused(mlcl: Mlcl, folder: Path, command: tuple[str, ...]) -> None:
    outcome = mlcl(*command)
    assert outcome.code == 2
    assert "error: dataset: circo has no training split. Train on another data set, and evaluate here" in outcome.err
    assert not (folder / "work/finetune").exists()


def test_init_names_a_command_that_works_without_training(mlcl: Mlcl, tmp_path: Path) -> None:
    assert "then run `mlcl check`" in mlcl("init", "--dataset", "circo").out
    text = (tmp_path / "mlcl.yaml").read_text()
    assert "# auto (the usual ones) | circo: relative | relative+concept\n" in text


def test_a_combiner_trained_on_another_data_set_is_evaluated(mlcl: Mlcl, trained: list[str]) -> None:
    result = mlcl("evaluate", "--json", *trained).json
    assert result["protocol"] == "circo-val"
    assert list(result["metrics"]) == METRICS
    assert (result["queries"], result["gallery"]) == (12, 60)
    assert (result["checkpoint"], result["trained_on"]) == (trained[1], "cirr")
    assert result["metrics"]["recall@50"] >= result["metrics"]["recall@5"]
    words = mlcl("evaluate", "--json", *trained, "--set", "evaluate.captions=relative+concept").json
    assert words["protocol"] == "circo-val-concept"
    assert list(words["metrics"]) == METRICS


@pytest.mark.parametrize("combiner", [True, False])
def test_submission_answers_every_query(mlcl: Mlcl, trained: list[str], tmp_path: Path, combiner: bool) -> None:
    options = trained if combiner else ["--combining-function", "sum"]
    result = mlcl("submit-circo", "--name", "first", "--json", *options).json
    path = tmp_path / "work/submissions/first/circo_submission_first.json"
    assert (result["command"], result["files"], result["queries"]) == ("submit-circo", [str(path)], 12)
    assert result["bytes"] == [path.stat().st_size]
    answers = json.loads(path.read_text())
    assert list(answers) == [str(number) for number in range(12)]
    listed = {image["id"] for image in json.loads((tmp_path / LISTING).read_text())["images"]}
    assert all(len(answer) == len(listed.intersection(answer)) == 50 for answer in answers.values())


def test_the_submission_uses_the_caption_rule_of_the_profile(mlcl: Mlcl, folder: Path) -> None:
    sum_query = ("--combining-function", "sum", "--quiet")
    for name, rule in (("plain", "relative"), ("concept", "relative+concept")):
        assert mlcl("submit-circo", *sum_query, "--name", name, "--set", f"evaluate.captions={rule}").code == 0
    plain, concept = (
        (folder / f"work/submissions/{name}/circo_submission_{name}.json").read_text() for name in ("plain", "concept")
    )
    assert plain != concept


def test_a_gap_between_the_query_ids_is_refused(mlcl: Mlcl, folder: Path) -> None:
    path = folder / "data/annotations/test.json"
    records = json.loads(path.read_text())
    records[3]["id"] = 12
    write_json(path, records)
    outcome = mlcl("submit-circo", "--combining-function", "sum")
    assert outcome.code == 3
    assert "the CIRCO submission has no query 3. The server takes all numbers from 0 to 11" in outcome.err
    assert not (folder / "work/submissions").exists()


@pytest.mark.parametrize(("dataset", "command"), [("circo", "submit-cirr"), ("cirr", "submit-circo")])
def test_a_submission_for_the_other_benchmark_is_refused(
    mlcl: Mlcl, tmp_path: Path, dataset: str, command: str
) -> None:
    world(tmp_path, dataset)
    outcome = mlcl(command, "--combining-function", "sum")
    assert outcome.code == 2
    assert f"{command} is for {command[7:]}, but this profile's data set is {dataset}" in outcome.err


def test_check_judges_what_can_be_done_without_training(mlcl: Mlcl, folder: Path) -> None:
    assert mlcl("check", "--json").json["verdicts"] == {"evaluate": "ok", "submit-circo": "ok"}
    (folder / "data/annotations/test.json").unlink()
    outcome = mlcl("check", "--json").json
    assert outcome["verdicts"] == {"evaluate": "ok", "submit-circo": "would fail"}


def test_absent_images_are_counted_and_the_first_few_named(mlcl: Mlcl, folder: Path) -> None:
    images = folder / "data/COCO2017_unlabeled/unlabeled2017"
    for number in (3, 10, 17):
        (images / f"{number:012}.jpg").unlink()
    outcome = mlcl("check", "--json")
    assert outcome.code == 3
    assert len(outcome.findings("images")) == 3
    refused = mlcl("evaluate", "--combining-function", "sum", "--quiet")
    assert refused.code == 3
    assert "3 images missing or unreadable: " in refused.err
    assert "000000000003.jpg (missing)" in refused.err
    shutil.rmtree(images)
    outcome = mlcl("check", "--json")
    first, _ = outcome.findings("images")
    assert first["where"] == str(images)
    assert first["what"].startswith("none of the 60 images of val exists: 000000000003.jpg, 000000000010.jpg, ")
    assert first["what"].endswith(" and 55 more")
