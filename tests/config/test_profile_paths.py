"""Paths in a profile, and what names a CLIP."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlcl_cli.config import Profile
from mlcl_cli.config.types import CLIP_NAMES

Load = Callable[..., Profile]
Complaint = Callable[..., str]


def test_paths_start_at_the_profiles_folder(folder: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/big/data")
    monkeypatch.setenv("HOME", "/home/someone")
    profile = load(
        "dataset: shoes\nroots: {fashioniq: $DATA/fiq, shoes: '${DATA}/shoes', cirr: ~/cirr}\nworkspace: ../out\n"
        "clip: {model: clip.pt, checkpoint: tuned/best}\nshoes: {images: cost$$5}\n",
    )
    assert profile.root == profile.roots.shoes == Path("/big/data/shoes")
    assert profile.roots.fashioniq == Path("/big/data/fiq")
    assert profile.roots.cirr == Path("/home/someone/cirr")
    assert profile.workspace == folder.parent / "out"
    assert profile.clip.model == folder / "clip.pt"
    assert profile.clip.checkpoint == folder / "tuned/best"
    assert profile.shoes.images == folder / "cost$5"
    assert profile.shoes.annotations == Path("/big/data/shoes/annotations")


@pytest.mark.parametrize("section", ["", "shoes:\n", "shoes: {}\n", "shoes: {images: /a/images}\n"])
def test_the_raw_shoes_download_defaults_to_its_root(load: Load, section: str) -> None:
    profile = load(f"dataset: shoes\nroots: {{shoes: /a}}\n{section}")
    assert (profile.shoes.images, profile.shoes.annotations) == (Path("/a/images"), Path("/a/annotations"))


def test_an_empty_section_takes_its_defaults(load: Load) -> None:
    text = "dataset: cirr\nroots:\nclip:\nimage:\nfinetune:\ncombiner:\nevaluate:\n"
    assert load(text) == load("dataset: cirr\n")


def test_paths_of_overrides_start_at_the_working_folder(
    folder: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    profile = load("dataset: cirr\n", "clip.checkpoint=best.pt", "roots.shoes=shoes", "clip.model=RN50")
    assert profile.clip.checkpoint == folder / "here/best.pt"
    assert profile.clip.model == "RN50"
    assert type(profile.clip.model) is str
    assert profile.shoes.images == folder / "here/shoes/images"
    assert profile.workspace == folder / "runs"


def test_an_unset_variable_is_named(complaint: Complaint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    text = "dataset: cirr\nworkspace: ${NOWHERE}/x\n"
    expected = "mlcl.yaml:2: workspace: uses the environment variable 'NOWHERE', which is not set"
    assert complaint(text) == expected


@pytest.mark.parametrize("value", ["3", "[a]", "''", "~", "'a\\0b'", '"a\\0b"', "~nobody-of-this-name/x"])
def test_an_invalid_path_is_refused(complaint: Complaint, load: Load, value: str) -> None:
    if value == "'a\\0b'":
        load(f"dataset: cirr\nworkspace: {value}\n")
    else:
        assert "path" in complaint(f"dataset: cirr\nworkspace: {value}\n")


def test_clip_names_are_those_of_openai() -> None:
    import clip

    assert list(CLIP_NAMES) == clip.available_models()


@pytest.mark.parametrize("model", CLIP_NAMES)
def test_each_clip_name_is_accepted(load: Load, model: str) -> None:
    assert load(f"dataset: cirr\nclip: {{model: {model}}}\n").clip.model == model


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("RN50x5", "RN50"), ("rn50x4", "RN50x4"), ("ViT-L/14@336", "ViT-L/14@336px"), ("ViT-B/31", "ViT-B/32")],
)
def test_an_unknown_clip_name_suggests_one(complaint: Complaint, wrong: str, meant: str) -> None:
    line = complaint(f"dataset: cirr\nclip:\n  model: {wrong}\n")
    assert line.startswith("mlcl.yaml:3: clip.model: must be one of RN50, RN101,")
    assert f"not '{wrong}'; did you mean '{meant}" in line


@pytest.mark.parametrize("model", ["weights/RN50x4", "my.pt", "./RN50x5", "/a/b", "ViT-B/32.pt"])
def test_a_clip_may_be_a_file(folder: Path, load: Load, model: str) -> None:
    assert load(f"dataset: cirr\nclip: {{model: {model}}}\n").clip.model == folder / model


def test_a_checkpoint_is_a_word_or_a_file(complaint: Complaint, load: Load) -> None:
    assert load("dataset: cirr\nclip: {checkpoint: none}\n").clip.checkpoint == "none"
    assert load("dataset: cirr\n", "clip.checkpoint=none").clip.checkpoint == "none"
    line = complaint("dataset: cirr\nclip: {checkpoint: best}\n")
    assert line.endswith(
        "must be one of auto, none or a path, not 'best'. A path needs a folder or an extension: ./best"
    )
    assert complaint("dataset: cirr\nclip: {checkpoint: non}\n").endswith("did you mean 'none'?")
