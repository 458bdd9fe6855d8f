"""Two thousand damaged files: each is recognized and named, and none gives a wrong metric or a traceback."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from world import picture

from mlcl_cli.errors import DataError
from mlcl_cli.features.bank import Bank
from mlcl_cli.images.decode import open_image
from mlcl_cli.models.weights import load_clip
from mlcl_cli.runs.checkpoints import (
    PlainState,
    TrainingState,
    load_checkpoint,
    load_state,
    save_checkpoint,
    save_state,
)
from mlcl_cli.runs.description import Kind, TrainingDescription

KEY = {"kind": "images", "encoder": "abc"}
EACH = 250


def damaged(content: bytes, seed: int) -> Iterator[bytes]:
    """Truncated at every kind of place; bytes changed, cut out, repeated, zeroed; files of other programs."""
    draw = random.Random(seed)
    size = len(content)
    ends = {0, 1, 7, 8, 9, size - 1, size - 2, size // 2, *draw.sample(range(size), EACH // 2)}
    for end in sorted(ends):
        yield content[:end]
    for _ in range(EACH):
        place = draw.randrange(size)
        yield content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
    for _ in range(EACH // 4):
        low, high = sorted(draw.sample(range(size), 2))
        yield content[:low] + content[high:]
        yield content[:high] + content[low:]
        yield content[:low] + bytes(high - low) + content[high:]
    yield from (b"\0" * 100, b"{}", b"<html>404</html>", b"\x89PNG\r\n\x1a\n", content + b"more")


def weights() -> dict[str, Tensor]:
    names = ("text_projection_layer", "image_projection_layer", "combiner_layer")
    draw = torch.Generator().manual_seed(0)
    return {f"{name}.weight": torch.randn(6, 4, generator=draw) for name in names}


def make_checkpoint(path: Path) -> None:
    save_checkpoint(path, Kind.COMBINER, weights(), TrainingDescription(dataset="cirr"), epoch=7, score=41.5)


def make_state(path: Path) -> None:
    plain = PlainState(groups=[{"lr": 0.1, "params": [0]}], scaler={}, scheduler=None, history=["loss"])
    moments = {"0.exp_avg": torch.ones(6, 4)}
    save_state(path, TrainingState(3, 2, weights(), moments, {"loss": torch.ones(2)}, plain), {"kind": "combiner"})


def read_checkpoint(path: Path) -> object:
    checkpoint = load_checkpoint(path)
    return {name: tensor.tolist() for name, tensor in checkpoint.state.items()}, checkpoint.about


def read_state(path: Path) -> object:
    state, about = load_state(path)
    description = (state.epoch, state.steps_done, state.plain, about)
    tensors = {**state.weights, **state.optimizer, **state.history}
    return description, {name: tensor.tolist() for name, tensor in tensors.items()}


@pytest.mark.parametrize(("make", "read"), [(make_checkpoint, read_checkpoint), (make_state, read_state)])
def test_damaged_checkpoint_is_recognized(
    tmp_path: Path, make: Callable[[Path], None], read: Callable[[Path], object]
) -> None:
    path = tmp_path / "file.safetensors"
    make(path)
    sound, content = read(path), path.read_bytes()
    cases = 0
    for wrong in damaged(content, 1):
        path.write_bytes(wrong)
        cases += 1
        try:
            # What a change leaves readable, such as a space in the header, must hold what was written.
            assert read(path) == sound, wrong
        except DataError as error:
            assert str(path) in str(error)
    assert cases > 500


def test_damaged_shard_counts_as_missing_or_holds_what_was_written(tmp_path: Path) -> None:
    bank = Bank(tmp_path, KEY)
    draw = torch.Generator().manual_seed(0)
    names = {f"image {number}": str(number) for number in range(12)}
    values = torch.randn(12, 4, generator=draw)
    bank.add(names, values)
    (shard,) = bank.path.glob("*.safetensors")
    content = shard.read_bytes()
    cases = 0
    for wrong in damaged(content, 2):
        shard.write_bytes(wrong)
        cases += 1
        again = Bank(tmp_path, KEY)
        if missing := again.missing(names):
            assert missing == list(names)
            assert not shard.exists()
        else:
            assert torch.equal(again.table(names, torch.device("cpu")).values, values)
    assert cases > 500


def test_damaged_original_file_loads_or_is_an_error(tmp_path: Path) -> None:
    """The original format has no checksum: what torch can read is used, and anything else is an error."""
    path = tmp_path / "old.pt"
    torch.save({"epoch": 7, "Combiner": weights()}, path)
    content = path.read_bytes()
    for wrong in damaged(content, 3):
        path.write_bytes(wrong)
        for read in (load_checkpoint, load_clip):
            try:
                read(path)
            except DataError as error:
                assert str(path) in str(error)


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "bmp"])
def test_damaged_image_decodes_or_is_an_error(tmp_path: Path, ending: str) -> None:
    path = picture(tmp_path / f"file.{ending}", 1, (64, 48))
    content = path.read_bytes()
    for wrong in damaged(content, 4):
        path.write_bytes(wrong)
        try:
            image = open_image(path)
        except (OSError, ValueError) as error:
            assert str(error)
        else:
            image.convert("RGB").resize((8, 8))
