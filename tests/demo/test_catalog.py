"""The demo's catalog has the layout of the three data sets, and its images show what their captions say."""

import hashlib
import itertools
import random
from pathlib import Path

import pytest

from mlcl_cli.atomic_files import write_files
from mlcl_cli.config import load_profile
from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.shoes import prepare_shoes
from mlcl_cli.demo import ROOTS
from mlcl_cli.demo.catalog import TrainingImage, draw_catalog, profile_text
from mlcl_cli.demo.drawings import PAINTERS
from mlcl_cli.demo.vocabulary import KINDS
from mlcl_cli.images.image_cache import ImageCache
from mlcl_cli.images.transforms import Transform
from mlcl_cli.progress import NoProgress


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrainingImage]]:
    folder = tmp_path_factory.mktemp("catalog")
    images = draw_catalog(folder)
    root = folder / ROOTS["shoes"]
    folders = {"images": root / "images", "annotations": root / "annotations"}
    write_files(prepare_shoes(root, folders, NoProgress()).contents)
    return folder, images


@pytest.mark.parametrize("dataset", ROOTS)
def test_every_split_loads_and_every_image_opens(catalog: tuple[Path, list[TrainingImage]], dataset: str) -> None:
    root = catalog[0] / ROOTS[dataset]
    splits = {name: DATASETS[dataset].load(root, name) for name in ("train", "val")}
    if dataset == "cirr":
        splits["test1"] = DATASETS[dataset].load(root, "test1")
        assert [triplet.captions for triplet in splits["test1"].triplets].count(("",)) == 1
    for split in splits.values():
        files = [(name, split.paths[name]) for name in split.images()]
        assert len(files) >= 40
        assert ImageCache(files, Transform("clip", 1.25, 8), 2, 0).find_bad(lambda _: None) == []
    assert not set(splits["train"].triplet_images()) & set(splits["val"].images())
    assert len(splits["train"].triplets) >= 1500
    assert all(len(part.gallery) >= 200 for part in splits["val"].sets)


def test_only_training_images_are_described(catalog: tuple[Path, list[TrainingImage]]) -> None:
    folder, images = catalog
    paths = {image.path for image in images}
    for dataset, root in ROOTS.items():
        val = DATASETS[dataset].load(folder / root, "val")
        assert not paths & set(val.paths.values())
    assert len(paths) == len(images) > 1500
    assert all(image.description and image.phrases for image in images)


def test_seed_decides_every_byte(catalog: tuple[Path, list[TrainingImage]], tmp_path: Path) -> None:
    def digest(folder: Path) -> str:
        files = sorted(path for path in (folder / "data/cirr_dataset").rglob("*") if path.is_file())
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    draw_catalog(tmp_path / "again", ["cirr"])
    draw_catalog(tmp_path / "other", ["cirr"], seed=1)
    assert digest(tmp_path / "again") == digest(catalog[0])
    assert digest(tmp_path / "other") != digest(catalog[0])


def test_captions_never_change(catalog: tuple[Path, list[TrainingImage]]) -> None:
    digest = hashlib.sha256()
    for pattern in ("fashionIQ_dataset/captions/*", "cirr_dataset/cirr/captions/*"):
        for path in sorted((catalog[0] / "data").glob(pattern)):
            digest.update(path.read_bytes())
    digest.update((catalog[0] / "data/shoes/annotations/relative_captions_shoes.json").read_bytes())
    assert digest.hexdigest() == "63c133a094cffaec1c5e2a2cd3228a70b68535a9820af688790f160cb6964008"


@pytest.mark.parametrize("name", KINDS)
def test_every_attribute_value_shows_in_the_image(name: str) -> None:
    base = {key: values[-1] for key, values in KINDS[name].attributes.items()}
    for key, values in KINDS[name].attributes.items():
        images = [PAINTERS[name]({**base, key: value}, random.Random(0)).tobytes() for value in values]
        assert all(one != other for one, other in itertools.combinations(images, 2)), key


@pytest.mark.parametrize("dataset", ROOTS)
def test_written_profile_loads(tmp_path: Path, dataset: str) -> None:
    (tmp_path / "mlcl.yaml").write_text(profile_text(dataset))
    assert load_profile(tmp_path / "mlcl.yaml").dataset == dataset


def test_shipped_profile_equals_the_written_one() -> None:
    shipped = Path(__file__).parents[2] / "configs/demo.yaml"
    assert shipped.read_text() == profile_text("fashioniq")
