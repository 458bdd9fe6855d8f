"""The same pipeline on CUDA, in mixed precision; skipped without a GPU."""

from pathlib import Path

import pytest
import torch
from command_line import Mlcl
from world import world

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("precision", ["auto", "fp16", "fp32"])
def test_the_pipeline_on_a_gpu(mlcl: Mlcl, tmp_path: Path, precision: str) -> None:
    world(tmp_path, "cirr")
    on_gpu = ("--set", "device=cuda", "--set", f"precision={precision}")
    for encoder in ("text", "image", "both"):
        assert mlcl("finetune", "--encoder", encoder, *on_gpu).code == 0
    trained = mlcl("train-combiner", *on_gpu, "--json").json
    evaluated = mlcl("evaluate", *on_gpu, "--json").json
    assert evaluated["metrics"] == pytest.approx(trained["metrics"], abs=1e-6)
    assert mlcl("submit-cirr", *on_gpu).code == 0


def test_precision_changes_no_figure_of_an_evaluation(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=100)
    figures = []
    for precision in ("auto", "fp32"):
        options = (
            "--set",
            "device=cuda",
            "--set",
            f"precision={precision}",
            "--set",
            f"workspace={precision}",
            "--json",
        )
        figures.append(mlcl("evaluate", "--combining-function", "sum", *options).json["metrics"])
    assert figures[0] == figures[1]


def test_gpu_and_cpu_agree_in_full_precision(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=100)
    sum_only = ("evaluate", "--combining-function", "sum", "--set", "precision=fp32", "--json")
    figures = [mlcl(*sum_only, "--set", f"device={device}") for device in ("cpu", "cuda")]
    first, second = (figure.json["metrics"] for figure in figures)
    assert first == pytest.approx(second, abs=1.5)
