"""`--combining-function weighted` and `product`: how the text's weight is chosen, set, shown and refused."""

import json
from pathlib import Path
from shutil import copytree
from typing import get_args

import pytest
from command_line import Mlcl
from world import world

from mlcl_cli.cli.options import CombiningOption
from mlcl_cli.config import load_profile
from mlcl_cli.runs.description import Kind
from mlcl_cli.workflows import composers
from mlcl_cli.workflows.resume import identity

WEIGHTED = ("evaluate", "--combining-function", "weighted")


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIRR, untouched; tests change copies of it."""
    return world(tmp_path_factory.mktemp("composers"), "cirr", triplets=20)


@pytest.fixture
def cirr(untouched: Path, tmp_path: Path) -> Path:
    copytree(untouched, tmp_path, dirs_exist_ok=True)
    return tmp_path


def annotations(folder: Path, split: str) -> Path:
    return folder / f"data/cirr/captions/cap.rc2.{split}.json"


def test_every_composer_is_offered_on_the_command_line() -> None:
    choices = get_args(get_args(CombiningOption)[0])
    assert choices == ("combiner", *composers.COMPOSERS)


@pytest.mark.usefixtures("cirr")
def test_the_weight_is_chosen_on_training_triplets_and_told(mlcl: Mlcl) -> None:
    outcome = mlcl(*WEIGHTED, "--json")
    chosen = outcome.json
    assert chosen["combining_function"] == "weighted"
    assert chosen["text_weight_triplets"] == 20
    assert chosen["text_weight"] in [step / 20 for step in range(21)]
    told = f"Text weight: {chosen['text_weight']:g}, the best of 21 on 20 training triplets by arithmetic_mean"
    assert told in outcome.err
    again = mlcl(*WEIGHTED, "--json", "--quiet")
    assert told in again.err
    assert again.json == chosen
    given = mlcl(*WEIGHTED, "--set", f"evaluate.text_weight={chosen['text_weight']}", "--json").json
    assert given == {**chosen, "text_weight_triplets": None}
    assert f"text weight: {chosen['text_weight']:.2f}" in mlcl(*WEIGHTED).out


def test_the_weight_does_not_depend_on_the_validation_split(mlcl: Mlcl, cirr: Path) -> None:
    before = mlcl(*WEIGHTED, "--json").json
    path = annotations(cirr, "val")
    records = json.loads(path.read_text())
    for record in records:
        record["target_hard"] = record["img_set"]["members"][-1]
    path.write_text(json.dumps(records))
    after = mlcl(*WEIGHTED, "--json").json
    assert after["text_weight"] == before["text_weight"]
    assert after["metrics"] != before["metrics"]


@pytest.mark.usefixtures("cirr")
def test_no_more_than_the_limit_of_triplets_is_drawn_by_the_seed(mlcl: Mlcl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composers, "MAX_TRIPLETS", 5)
    first = mlcl(*WEIGHTED, "--json").json
    assert first["text_weight_triplets"] == 5
    assert mlcl(*WEIGHTED, "--json").json == first


@pytest.mark.usefixtures("cirr")
def test_weights_at_the_ends_rank_like_text_and_image_alone(mlcl: Mlcl) -> None:
    for weight, alone in ((0, "image"), (1, "text")):
        weighted = mlcl(*WEIGHTED, "--set", f"evaluate.text_weight={weight}", "--json").json
        assert weighted["text_weight"] == weight
        assert weighted["metrics"] == mlcl("evaluate", "--combining-function", alone, "--json").json["metrics"]


@pytest.mark.usefixtures("cirr")
def test_other_composers_have_no_weight(mlcl: Mlcl) -> None:
    product = mlcl("evaluate", "--combining-function", "product", "--set", "evaluate.text_weight=0.3", "--json").json
    assert (product["combining_function"], product["checkpoint"]) == ("product", None)
    assert (product["text_weight"], product["text_weight_triplets"]) == (None, None)


def test_one_weight_serves_all_protocols(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "fashioniq", images=30)
    result = mlcl(*WEIGHTED, "--protocol", "all", "--json").json
    assert len(result["protocols"]) == 4
    assert result["text_weight"] == mlcl(*WEIGHTED, "--json").json["text_weight"]


@pytest.mark.usefixtures("cirr")
def test_submissions_take_composers(mlcl: Mlcl) -> None:
    submitted = mlcl("submit-cirr", "--combining-function", "weighted", "--json").json
    assert submitted["text_weight_triplets"] == 20
    assert all(Path(file).is_file() and "weighted" in file for file in submitted["files"])


@pytest.mark.usefixtures("cirr")
@pytest.mark.parametrize("value", ["1.5", "-0.1", "true", "half", "[0.5]", ".nan"])
def test_wrong_weights_are_refused(mlcl: Mlcl, value: str) -> None:
    outcome = mlcl(*WEIGHTED, "--set", f"evaluate.text_weight={value}")
    assert outcome.code == 2
    assert f"--set evaluate.text_weight={value}: must be auto or a number from 0 to 1" in outcome.err


def test_without_training_triplets_the_error_says_to_set_the_weight(mlcl: Mlcl, cirr: Path) -> None:
    annotations(cirr, "train").unlink()
    outcome = mlcl(*WEIGHTED)
    assert outcome.code == 3
    assert "cap.rc2.train.json: does not exist" in outcome.err.splitlines()[-1]
    assert "Set evaluate.text_weight to a number from 0 to 1" in outcome.err.splitlines()[-1]
    assert mlcl(*WEIGHTED, "--set", "evaluate.text_weight=0.3", "--json").json["text_weight"] == 0.3


def test_a_data_set_without_a_training_split_needs_a_weight(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "circo")
    outcome = mlcl(*WEIGHTED)
    assert outcome.code == 3
    assert "circo has no training split. Set evaluate.text_weight to a number from 0 to 1" in outcome.err
    assert mlcl(*WEIGHTED, "--set", "evaluate.text_weight=0.3").code == 0


def test_bad_training_images_stop_or_are_dropped_as_everywhere(mlcl: Mlcl, cirr: Path) -> None:
    reference = json.loads(annotations(cirr, "train").read_text())[0]["reference"]
    next((cirr / "data").rglob(f"{reference}.png")).write_bytes(b"")
    outcome = mlcl(*WEIGHTED)
    assert outcome.code == 3
    assert reference in outcome.err.splitlines()[-1]
    assert "Set evaluate.text_weight" in outcome.err.splitlines()[-1]
    assert mlcl(*WEIGHTED, "--set", "bad_images=drop", "--json").json["text_weight_triplets"] < 20


@pytest.mark.usefixtures("cirr")
def test_a_checkpoint_beside_a_composer_is_refused(mlcl: Mlcl) -> None:
    outcome = mlcl(*WEIGHTED, "--checkpoint", "clip.pt")
    assert outcome.code == 2
    assert "--checkpoint names a combiner, but weighted uses none" in outcome.err


def test_a_run_can_be_resumed_with_another_text_weight(cirr: Path) -> None:
    auto, given = (
        identity(load_profile(cirr / "mlcl.yaml", overrides), Kind.COMBINER, [], "clip", {})
        for overrides in ((), ("evaluate.text_weight=0.3",))
    )
    assert auto == given
