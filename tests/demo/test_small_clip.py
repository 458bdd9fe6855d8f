"""The small CLIP is a file that OpenAI's loader takes."""

from pathlib import Path

import torch

from mlcl_cli.demo.catalog import TrainingImage
from mlcl_cli.demo.small_clip import SIZE, train_small_clip
from mlcl_cli.models.weights import load_clip
from mlcl_cli.progress import NoProgress


def test_trained_weights_load_like_official_ones(tmp_path: Path) -> None:
    images = [TrainingImage(Path(str(row)), f"picture {row}", (f"number {row}", "a picture")) for row in range(256)]
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / "clip.pt"
    train_small_clip(
        images, path, load=lambda _: torch.randn(3, SIZE, SIZE, generator=generator), progress=NoProgress(), epochs=1
    )
    assert load_clip(path).visual.input_resolution == SIZE
