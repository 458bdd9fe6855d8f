"""Mixed precision runs the same pipeline on a CPU, too."""

from pathlib import Path

import pytest
from conftest import Mlcl
from world import world


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_pipeline_in_half_precision(mlcl: Mlcl, tmp_path: Path, precision: str) -> None:
    world(tmp_path, "cirr")
    half = ("--set", f"precision={precision}", "--json")
    for encoder in ("text", "both"):
        assert mlcl("finetune", "--encoder", encoder, *half).code == 0
    trained = mlcl("train-combiner", *half).json
    assert mlcl("evaluate", *half).json["metrics"] == trained["metrics"]
