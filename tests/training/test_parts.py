"""Checkpoints, banks, sources and captions: what training is made of."""

from pathlib import Path

import pytest
import torch
from world import SIZES, tiny_clip

from mlcl_cli.data.records import Triplet
from mlcl_cli.errors import DataError
from mlcl_cli.models.combiner import Architecture, Combiner
from mlcl_cli.models.compute import choose_compute
from mlcl_cli.models.encoder import Encoder, tokenize
from mlcl_cli.models.weights import build_clip, fingerprint, load_clip, load_tuned
from mlcl_cli.runs.checkpoints import load_checkpoint, save_checkpoint
from mlcl_cli.runs.description import Kind, TrainingDescription
from mlcl_cli.runs.original_format import write_original
from mlcl_cli.training.triplet_rows import index_triplets

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    path = tiny_clip(tmp_path_factory.mktemp("clip") / "clip.pt")
    return Encoder(load_clip(path), choose_compute("cpu", "fp32"))


def test_tuned_weights_keep_their_full_precision(tmp_path: Path) -> None:
    path = tiny_clip(tmp_path / "clip.pt")
    state = torch.load(path, weights_only=True)
    loaded = load_clip(path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert fingerprint(loaded) == fingerprint(state)


def test_resnet_clip_loads(tmp_path: Path) -> None:
    sizes = {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "vision_patch_size": None}
    path = tiny_clip(tmp_path / "clip.pt", **sizes)
    assert load_clip(path).visual.input_resolution == SIZES["image_resolution"]


def test_torchscript_archive_loads(tmp_path: Path) -> None:
    state = torch.load(tiny_clip(tmp_path / "clip.pt"), weights_only=True)
    network = build_clip(state, "here")
    pixels, tokens = torch.zeros(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.int64)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, (pixels, tokens), check_trace=False).save(str(tmp_path / "archive.pt"))
    loaded = load_clip(tmp_path / "archive.pt").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_tuned_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    network = load_clip(tiny_clip(tmp_path / "a.pt"))
    other = torch.load(tiny_clip(tmp_path / "b.pt", embed_dim=24), weights_only=True)
    with pytest.raises(DataError, match="a different CLIP"):
        load_tuned(network, other, "b.pt")


def test_texts_truncated_to_the_longest_have_the_same_features(encoder: Encoder) -> None:
    texts = ["is red", "", "has longer sleeves and a much lower neckline than this one", "blue " * 200]
    tokens = tokenize(texts, encoder.context_length, CPU)
    assert tokens.truncated == 1
    whole = encoder.encode_texts(tokens.values)
    for rows in (torch.tensor([0, 1]), torch.tensor([2, 0]), torch.tensor([3, 1])):
        # How products round depends on the processor.
        torch.testing.assert_close(encoder.encode_texts(tokens.batch(rows)), whole[rows], rtol=0, atol=4e-6)
    assert tokens.batch(torch.tensor([0, 1])).shape == (2, 4)


def test_tokens_equal_those_of_clip() -> None:
    import clip

    texts = ["is red", "", "blue " * 75, "blue " * 76, "blue " * 200]
    tokens = tokenize(texts, 77, CPU)
    assert torch.equal(tokens.values, clip.tokenize(texts, truncate=True).int())
    assert tokens.truncated == 2


def test_checkpoints_are_read_back_and_exported(tmp_path: Path) -> None:
    state = dict(Combiner(Architecture(feature_dim=2, projection_dim=3, hidden_dim=4)).state_dict())
    path, old = tmp_path / "best.safetensors", tmp_path / "old.pt"
    save_checkpoint(path, Kind.COMBINER, state, TrainingDescription(seed=3), epoch=7, score=1.5)
    checkpoint = load_checkpoint(path, Kind.COMBINER)
    assert checkpoint.about.epoch == 7
    assert write_original(old, checkpoint.state, checkpoint.about) == []
    original = torch.load(old, weights_only=True)
    assert original["epoch"] == 7
    assert torch.equal(original["Combiner"]["combiner_layer.weight"], state["combiner_layer.weight"])
    assert load_checkpoint(old, Kind.COMBINER).about == checkpoint.about
    old.with_suffix(".json").unlink()
    about = load_checkpoint(old, Kind.COMBINER).about
    assert (about.epoch, about.fingerprint, about.seed) == (7, checkpoint.about.fingerprint, None)
    with pytest.raises(DataError, match="holds a combiner, expected a CLIP"):
        load_checkpoint(path, Kind.CLIP)


def test_damaged_and_foreign_checkpoints_are_named(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, Kind.CLIP, {"a": torch.ones(4)}, TrainingDescription(), epoch=1)
    content = path.read_bytes()
    for wrong in (content[:-1], content[:-1] + b"\x01", b"", b"\0" * 100):
        path.write_bytes(wrong)
        with pytest.raises(DataError, match=r"best\.safetensors"):
            load_checkpoint(path, Kind.CLIP)
    with pytest.raises(DataError, match="does not exist"):
        load_checkpoint(tmp_path / "none.pt", Kind.CLIP)


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("harm-was-done"),))


def test_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"epoch": 1, "CLIP": Harmful()}, tmp_path / "bad.pt")
    with pytest.raises(DataError, match="more than weights"):
        load_checkpoint(tmp_path / "bad.pt", Kind.CLIP)
    with pytest.raises(DataError, match="more than weights"):
        load_clip(tmp_path / "bad.pt")
    assert not Path("harm-was-done").exists()


def test_captions_are_drawn_evenly_and_differently_each_epoch() -> None:
    texts = ("one", "two", "three", "four")
    rows = index_triplets([Triplet("a", "b", ("x", "y"), texts=texts)] * 4000)
    first, second = rows.draw_captions(0, 1), rows.draw_captions(0, 2)
    assert torch.equal(first, rows.draw_captions(0, 1))
    assert not torch.equal(first, second)
    assert all(900 < int((first == row).sum()) < 1100 for row in range(4))
    assert rows.captions == ("one", "two", "three", "four")
    assert (rows.images, len(rows)) == (("a", "b"), 4000)


def test_checkpoint_permissions_follow_the_umask(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain", tmp_path / "best.safetensors"
    plain.touch()
    save_checkpoint(path, Kind.CLIP, {"a": torch.ones(4)}, TrainingDescription(), epoch=1)
    assert path.stat().st_mode == plain.stat().st_mode
