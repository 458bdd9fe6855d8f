"""The demo's catalog has the layout of DATASETS.md; the small CLIP is what OpenAI's loader takes."""

import hashlib
from pathlib import Path

import pytest
import torch

from mlcl_cli.atomic_files import write_files
from mlcl_cli.config import load_profile
from mlcl_cli.data.datasets import load_split
from mlcl_cli.data.prepare_shoes import prepare_shoes
from mlcl_cli.demo.catalog import Described, draw_catalog
from mlcl_cli.demo.recipe import profile_text
from mlcl_cli.demo.small_clip import SIZE, train_small_clip
from mlcl_cli.images.image_cache import ImageCache
from mlcl_cli.images.transforms import Transform
from mlcl_cli.models.weights import load_clip
from mlcl_cli.progress import NoProgress

ROOTS = {"fashioniq": "fashionIQ_dataset", "shoes": "shoes", "cirr": "cirr_dataset"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Described]]:
    folder = tmp_path_factory.mktemp("catalogue")
    described = draw_catalog(folder, list(ROOTS))
    root = folder / "data/shoes"
    folders = {"images": root / "images", "annotations": root / "annotations"}
    write_files(prepare_shoes(root, folders, NoProgress()).contents)
    return folder, described


@pytest.mark.parametrize("dataset", ROOTS)
def test_every_split_reads_and_every_picture_opens(drawn: tuple[Path, list[Described]], dataset: str) -> None:
    root = drawn[0] / "data" / ROOTS[dataset]
    splits = {name: load_split(dataset, root, name) for name in ("train", "val")}
    if dataset == "cirr":
        splits["test1"] = load_split(dataset, root, "test1")
        assert [triplet.captions for triplet in splits["test1"].triplets].count(("",)) == 1
    for split in splits.values():
        files = [(name, split.paths[name]) for name in split.images()]
        assert len(files) >= 40
        assert ImageCache(files, Transform("clip", 1.25, 8), 2, 0).find_bad(lambda _: None) == []
    assert not set(splits["train"].triplet_images()) & set(splits["val"].images())
    assert len(splits["train"].triplets) >= 1500
    assert all(len(part.gallery) >= 200 for part in splits["val"].sets)


def test_only_training_pictures_are_described(drawn: tuple[Path, list[Described]]) -> None:
    folder, described = drawn
    paths = {picture.path for picture in described}
    for dataset, root in ROOTS.items():
        val = load_split(dataset, folder / "data" / root, "val")
        assert not paths & set(val.paths.values())
    assert len(paths) == len(described) > 1500
    assert all(picture.whole and picture.parts for picture in described)


def test_a_seed_decides_every_byte(drawn: tuple[Path, list[Described]], tmp_path: Path) -> None:
    def digest(folder: Path) -> str:
        files = sorted(path for path in (folder / "data/cirr_dataset").rglob("*") if path.is_file())
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    draw_catalog(tmp_path / "again", ["cirr"])
    draw_catalog(tmp_path / "other", ["cirr"], seed=1)
    assert digest(tmp_path / "again") == digest(drawn[0])
    assert digest(tmp_path / "other") != digest(drawn[0])


def test_the_small_clip_learns_and_loads_as_the_official_weights_do(tmp_path: Path) -> None:
    pictures = [Described(Path(str(row)), f"picture {row}", (f"number {row}", "a picture")) for row in range(256)]
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / "clip.pt"
    train_small_clip(
        pictures, path, load=lambda _: torch.randn(3, SIZE, SIZE, generator=generator), progress=NoProgress(), epochs=1
    )
    assert load_clip(path).visual.input_resolution == SIZE


@pytest.mark.parametrize("dataset", ROOTS)
def test_the_demos_profiles_load(tmp_path: Path, dataset: str) -> None:
    (tmp_path / "mlcl.yaml").write_text(profile_text(dataset))
    assert load_profile(tmp_path / "mlcl.yaml").dataset == dataset


def test_the_shipped_demo_profile_is_the_demos() -> None:
    shipped = Path(__file__).parents[2] / "configs/demo.yaml"
    assert shipped.read_text() == profile_text("fashioniq")
