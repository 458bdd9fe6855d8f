"""Mixed precision runs the same pipeline, on a CPU too, and changes only training."""

from pathlib import Path

import pytest
import torch
from command_line import Mlcl
from world import world

from mlcl_cli.models.compute import Compute, choose_compute


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_evaluation_after_mixed_precision_training_equals_validation(
    mlcl: Mlcl, tmp_path: Path, precision: str
) -> None:
    world(tmp_path, "cirr")
    half = ("--set", f"precision={precision}", "--json")
    for encoder in ("text", "both"):
        assert mlcl("finetune", "--encoder", encoder, *half).code == 0
    trained = mlcl("train-combiner", *half).json
    assert mlcl("evaluate", *half).json["metrics"] == trained["metrics"]


@pytest.mark.parametrize("combining_function", ["sum", "image", "combiner"])
def test_ranks_and_metrics_do_not_depend_on_precision(mlcl: Mlcl, tmp_path: Path, combining_function: str) -> None:
    world(tmp_path, "fashioniq", triplets=30, images=30)
    if combining_function == "combiner":
        assert mlcl("train-combiner").code == 0
    results = []
    for precision in ("fp32", "bf16", "fp16"):
        options = ("--set", f"precision={precision}", "--ranks", f"{precision}.csv", "--json")
        metrics = mlcl("evaluate", "--combining-function", combining_function, *options).json["metrics"]
        results.append((metrics, (tmp_path / f"{precision}.csv").read_bytes()))
    assert results[0] == results[1] == results[2]


def test_validation_of_a_training_encoder_is_in_fp32(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "fashioniq", triplets=30, images=30)
    half = ("--set", "precision=bf16", "--json")
    trained = mlcl("finetune", "--encoder", "both", "--epochs", "1", *half).json
    evaluated = mlcl("evaluate", "--combining-function", "sum", "--set", "precision=fp32", "--json").json
    assert trained["metrics"] == evaluated["metrics"]


def test_every_precision_uses_the_same_bank(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    for precision in ("bf16", "fp32"):
        assert mlcl("evaluate", "--combining-function", "sum", "--set", f"precision={precision}").code == 0
    assert sorted(path.stem.split("-")[0] for path in (tmp_path / "work/features").iterdir() if path.is_dir()) == [
        "images",
        "texts",
    ]


def tf32() -> tuple[str, str]:
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision


def test_tf32_is_allowed_in_mixed_training_steps_only() -> None:
    choose_compute("cpu", "fp32")
    assert tf32() == ("ieee", "ieee")
    for dtype, expected in ((torch.bfloat16, "tf32"), (None, "ieee")):
        with Compute(torch.device("cuda"), dtype).training():
            assert tf32() == (expected, expected)
        assert tf32() == ("ieee", "ieee")
