"""An image of one column, which padding would make huge: check finds it, training names it, `drop` skips it."""

from pathlib import Path

import pytest
from command_line import Mlcl
from PIL import Image
from world import world

REASON = "too narrow: 1 × 300000 pixels would be"


@pytest.mark.parametrize("transform", ["targetpad", "squarepad", "clip"])
def test_narrow_image_is_found_named_and_dropped(mlcl: Mlcl, tmp_path: Path, transform: str) -> None:
    world(tmp_path, "cirr")
    path = tmp_path / "data/dev/val-3-img0.png"
    Image.new("L", (1, 300_000)).save(path)
    setting = ("--set", f"image.transform={transform}")
    outcome = mlcl("check", *setting)
    assert outcome.code == 3
    assert f"{path}: {REASON}" in outcome.out
    outcome = mlcl("train-combiner", "--epochs", "1", *setting)
    assert outcome.code == 3
    assert f"{path} ({REASON}" in outcome.err
    outcome = mlcl("train-combiner", "--epochs", "1", "--set", "bad_images=drop", *setting)
    assert outcome.code == 0
    assert "1 bad image" in outcome.err
    assert mlcl("check", "--set", "bad_images=drop", *setting).code == 0
