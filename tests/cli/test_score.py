"""`mlcl score` judges anyone's predictions, and `mlcl evaluate` writes them, under every protocol of every data set."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import Mlcl
from world import world

from mlcl_cli.data.datasets import DATASETS

EVALUATE = ("evaluate", "--combining-function", "sum", "--json")
PROTOCOLS = [
    (dataset.name, protocol.name)
    for dataset in DATASETS.values()
    if "val" in dataset.splits
    for protocol in (*dataset.protocols, dataset.protocols[0].with_reference(excluded=False))
    if protocol.name in {known.name for known in dataset.protocols} or protocol.name.endswith("-withref")
]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for each data set."""
    folder = tmp_path_factory.mktemp("worlds")
    for dataset in {dataset for dataset, _ in PROTOCOLS}:
        world(folder / dataset, dataset)
    return folder


@pytest.mark.parametrize(("dataset", "protocol"), dict.fromkeys(PROTOCOLS))
def test_predictions_score_what_evaluate_says(
    mlcl: Mlcl, worlds: Path, tmp_path: Path, dataset: str, protocol: str
) -> None:
    folder = worlds / dataset
    if DATASETS[dataset].preparation:
        mlcl("prepare-shoes", folder=folder)
    for name in ("lists.json", "lists.jsonl", "features.npz"):
        path = str(tmp_path / name)
        evaluated = mlcl(*EVALUATE, "--protocol", protocol, "--predictions", path, folder=folder).json
        scored = mlcl("score", path, "--protocol", protocol, "--json", folder=folder).json
        assert scored["protocol"] == evaluated["protocol"] == protocol
        assert scored["metrics"] == evaluated["metrics"]
        assert [scored[key] for key in ("queries", "gallery")] == [evaluated[key] for key in ("queries", "gallery")]


def test_without_a_protocol_the_profile_decides(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "fashioniq")
    removed = ("--set", "evaluate.exclude_reference=true", "--set", "evaluate.gallery=val")
    evaluated = mlcl(*EVALUATE, *removed, "--predictions", "lists.json").json
    assert evaluated["protocol"] == "fashioniq-val-noref"
    scored = mlcl("score", "lists.json", "--json", *removed).json
    assert (scored["protocol"], scored["metrics"]) == (evaluated["protocol"], evaluated["metrics"])
    wrong = mlcl("score", "lists.json")
    assert wrong.code == 3
    assert "lists 6 images, but fashioniq-original needs 8" in wrong.err


def test_protocols_are_shown_side_by_side(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "fashioniq")
    single = {
        protocol.name: mlcl(*EVALUATE, "--protocol", protocol.name).json["metrics"]
        for protocol in DATASETS["fashioniq"].protocols
    }
    every = mlcl(*EVALUATE, "--protocol", "all").json
    assert {name: values["metrics"] for name, values in every["protocols"].items()} == single
    assert "TG-CIR" in every["protocols"]["fashioniq-val-noref"]["systems"]
    table = mlcl(*EVALUATE[:-1], "--protocol", "all").out
    assert table.splitlines()[2].split() == ["metric", "original", "original-noref", "val", "val-noref"]
    assert "CLIP4Cir" in table


def test_a_protocol_is_described_with_and_without_its_data(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "fashioniq")
    described = mlcl("evaluate", "--describe", "--protocol", "all", "--json").json["protocols"]
    assert [*described] == [protocol.name for protocol in DATASETS["fashioniq"].protocols]
    text = mlcl("evaluate", "--describe").out
    assert text.startswith("Protocol fashioniq-original (dress: 10 queries, 8 gallery images")
    assert "The reference image stays in the gallery." in text
    without = mlcl("evaluate", "--describe", "--set", "roots.fashioniq=nowhere")
    assert without.out.startswith("Protocol fashioniq-original. The gallery is every image")
    assert "the data cannot be read" in without.err


def test_features_that_are_not_unit_vectors_rank_by_inner_product(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    mlcl(*EVALUATE, "--predictions", "features.npz")
    arrays = dict(np.load(tmp_path / "features.npz"))
    np.savez(tmp_path / "longer.npz", **(arrays | {"image_features": 3 * arrays["image_features"]}))
    same = [mlcl("score", name, "--json") for name in ("features.npz", "longer.npz")]
    assert same[0].json["metrics"] == same[1].json["metrics"]
    assert "not of unit length: ranking by inner product" in same[1].err
    assert "inner product" not in same[0].err


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (("score", "lists.txt"), 2, "lists.txt: must end in .json, .jsonl or .npz"),
        (("score", "none.json"), 3, "none.json: cannot be read (No such file or directory)"),
        (("score", "lists.json", "--protocol", "cirr"), 2, "'cirr'; did you mean 'cirr-val'? Choose one of cirr-val"),
        (("score", "lists.json", "--protocol", "shoes"), 3, "data/shoes: does not exist"),
        (("score", "lists.json"), 3, "lists.json: 12 queries are not answered: '13', '14', '15', '16',"),
        ((*EVALUATE, "--protocol", "shoes"), 2, "shoes is a protocol of shoes, but this profile's data set is cirr"),
        ((*EVALUATE, "--protocol", "all", "--ranks", "r.csv"), 2, "--ranks: needs one protocol, not all"),
        ((*EVALUATE, "--predictions", "p.txt"), 2, "p.txt: must end in .json, .jsonl or .npz"),
        ((*EVALUATE, "--predictions", "mine.json"), 2, "mine.json: already exists and is not predictions written by"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line(mlcl: Mlcl, worlds: Path, command: tuple[str, ...], code: int, message: str) -> None:
    folder = worlds / "cirr"
    (folder / "lists.json").write_text("{}")
    (folder / "mine.json").write_text(json.dumps({"my": "notes"}))
    outcome = mlcl(*command, folder=folder)
    assert outcome.code == code
    assert message in outcome.err.splitlines()[-1]
    assert json.loads((folder / "mine.json").read_text()) == {"my": "notes"}
