"""The encode batch: as configured, or by free memory, and smaller when memory runs out."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from messages import Messages
from torch import Tensor
from world import picture, tiny_clip

from mlcl_cli.errors import MachineError
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.images.decode import BadImagesError
from mlcl_cli.images.file_stamps import content_digest
from mlcl_cli.images.image_cache import ImageCache
from mlcl_cli.images.transforms import Transform
from mlcl_cli.models import compute
from mlcl_cli.models.compute import Compute, choose_encode_batch
from mlcl_cli.models.encoder import Encoder
from mlcl_cli.models.weights import load_clip
from mlcl_cli.progress import NoProgress

CPU = torch.device("cpu")
MORE_BYTES_THAN_ANY_MACHINE = 2**50


class Hungry(Encoder):
    """Runs out of memory on batches larger than `limit`."""

    limit = 5

    def encode_images(self, pixels: Tensor) -> Tensor:
        if len(pixels) > self.limit:
            torch.empty(MORE_BYTES_THAN_ANY_MACHINE)
        return super().encode_images(pixels)

    def encode_texts(self, tokens: Tensor) -> Tensor:
        if len(tokens) > self.limit:
            torch.empty(MORE_BYTES_THAN_ANY_MACHINE)
        return super().encode_texts(tokens)


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[str, Path]]:
    return [(str(number), picture(tmp_path / f"{number}.png", number)) for number in range(70)]


def store(folder: Path, kind: type[Encoder], encode_batch: int | str = "auto") -> FeatureStore:
    encoder = kind(load_clip(tiny_clip(folder / "clip.pt")), Compute(CPU, None))
    transform = Transform("targetpad", 1.25, encoder.size)
    return FeatureStore(
        folder=folder / "features",
        encoder=encoder,
        transform=transform,
        workers=2,
        progress=NoProgress(),
        dataset="cirr",
        encode_batch=encode_batch,
    )


def test_out_of_memory_halves_the_batch_with_a_warning(tmp_path: Path, files: list[tuple[str, Path]]) -> None:
    plain = store(tmp_path / "plain", Encoder)
    messages = Messages()
    hungry = store(tmp_path / "hungry", Hungry)
    texts = [f"is {color}" for color in ("red", "green", "blue", "gray", "black", "white", "pink")]
    names = [name for name, _ in files]
    for features, expected in (
        (hungry.images(files).table, plain.images(files).table),
        (hungry.texts(texts), plain.texts(texts)),
        (
            hungry.encode_images_now(_cache(hungry, files), names),
            plain.encode_images_now(_cache(plain, files), names),
        ),
    ):
        assert features.rows == expected.rows
        torch.testing.assert_close(features.values, expected.values, rtol=0, atol=1e-5)
    assert [line.split(".")[0] for line in messages.warnings] == [
        "Out of memory while encoding 64 at once: trying 32",
        "Out of memory while encoding 32 at once: trying 16",
        "Out of memory while encoding 16 at once: trying 8",
        "Out of memory while encoding 8 at once: trying 4",
    ]
    assert "Set clip.encode_batch: 4" in messages.warnings[-1]


def test_equal_files_have_equal_features_in_any_batch_and_in_any_order(
    tmp_path: Path, files: list[tuple[str, Path]]
) -> None:
    for number in range(60, 70):
        shutil.copy(tmp_path / f"{number - 60}.png", tmp_path / f"{number}.png")
    (tmp_path / "30.png").write_bytes(b"broken")
    shutil.copy(tmp_path / "30.png", tmp_path / "31.png")
    features = store(tmp_path, Encoder, 8)
    features.stamps_of = lambda paths: {name: content_digest(path) for name, path in paths.items()}
    features.images(files[60:64])  # what is banked already is the source, whatever comes first later
    encoded = features.images(files)
    for number in range(60, 70):
        assert torch.equal(encoded.table.of([str(number)]), encoded.table.of([str(number - 60)]))
    assert {name: image.path.name for name, image in encoded.bad.items()} == {"30": "30.png", "31": "31.png"}
    again = features.images(files[::-1])
    names = [name for name, _ in files if name not in encoded.bad]
    assert torch.equal(again.table.of(names), encoded.table.of(names))


def _cache(features: FeatureStore, files: list[tuple[str, Path]]) -> ImageCache:
    return ImageCache(files, features.transform, 2)


def test_out_of_memory_for_a_single_image_is_an_error(
    tmp_path: Path, files: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hungry, "limit", 0)
    with pytest.raises(MachineError, match="single image or caption"):
        store(tmp_path, Hungry).images(files)


def test_other_errors_do_not_halve_the_batch(tmp_path: Path, files: list[tuple[str, Path]]) -> None:
    class Broken(Encoder):
        def encode_images(self, pixels: Tensor) -> Tensor:  # noqa: ARG002
            raise RuntimeError("shapes do not match")

    messages = Messages()
    with pytest.raises(RuntimeError, match="shapes do not match"):
        store(tmp_path, Broken).images(files)
    assert not messages.warnings


def test_views_do_not_depend_on_the_batch(tmp_path: Path, files: list[tuple[str, Path]]) -> None:
    small, large = (store(tmp_path / str(batch), Encoder, batch).views(files, 2, 0) for batch in (7, 128))
    torch.testing.assert_close(small, large, rtol=0, atol=1e-5)


def test_batch_is_as_configured_or_fits_into_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_encode_batch(1000, CPU, 288) == 1000
    assert choose_encode_batch("auto", CPU, 32) == 64
    memory = namedtuple("memory", "available")
    gigabyte = 2**30
    for available, expected in ((16 * gigabyte, 64), (2 * gigabyte, 32), (gigabyte // 4, 4), (0, 1)):
        monkeypatch.setattr(compute.psutil, "virtual_memory", lambda available=available: memory(available))
        assert choose_encode_batch("auto", CPU, 288) == expected


def test_banks_of_older_formats_are_named_once_and_kept(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = tmp_path / "features"
    folder.mkdir()
    save_file({"features": torch.ones(1, 2)}, folder / "images-0.safetensors", {"format": "mlcl features 1"})
    save_file({"features": torch.ones(1, 2)}, folder / "unrelated.safetensors")
    shard = folder / "texts-0123/0001.safetensors"
    shard.parent.mkdir()
    shutil.copy(Path(__file__).parents[1] / "runs/older/features-2.safetensors", shard)
    messages = Messages()
    features = store(tmp_path, Encoder)
    features.texts(["is red"])
    features.texts(["is blue"])
    (note,) = messages.notes
    assert "images-0.safetensors, texts-0123" in note
    assert "safe to delete" in note
    assert "unrelated" not in note
    assert (folder / "images-0.safetensors").exists()
    assert shard.exists()
    assert not messages.warnings


def test_unreadable_images_are_returned_with_the_features(tmp_path: Path, files: list[tuple[str, Path]]) -> None:
    files[3][1].write_bytes(b"")
    files[5][1].unlink()
    features = store(tmp_path, Encoder)
    for _ in range(2):  # encoded, then from the bank
        encoded = features.images(files)
        assert {name: bad.reason for name, bad in encoded.bad.items()} == {"3": "empty file", "5": "missing"}
        assert [*encoded.table.rows] == [name for name, _ in files if name not in encoded.bad]
    with pytest.raises(BadImagesError, match="2 images missing or unreadable"):
        features.views(files, 1, 0)
