"""Every layout of the public downloads."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.records import Split, Triplet

Write = Callable[[Path, object], Path]

ANNOTATIONS = {
    "fashioniq": ("captions/cap.dress.val.json", "image_splits/split.dress.val.json"),
    "shoes": ("annotations/triplet.val.json", "annotations/split.val.json"),
    "cirr": ("cirr/captions/cap.rc2.val.json", "cirr/image_splits/split.rc2.val.json"),
    "circo": ("annotations/val.json", "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"),
}
FILES = [(dataset, file) for dataset, files in ANNOTATIONS.items() for file in files]


def change(path: Path, edit: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def galleries(split: Split) -> dict[str, tuple[str, ...]]:
    return {part.name: part.gallery for part in split.sets}


# Layouts


def test_fashioniq_val_has_a_query_set_per_category(fashioniq: Path) -> None:
    split = DATASETS["fashioniq"].load(fashioniq, "val")
    assert galleries(split) == {
        category: tuple(f"{category}-val-{end}" for end in ("c", "spare", "b", "a"))
        for category in ("dress", "shirt", "toptee")
    }
    assert split.triplets[0] == Triplet("dress-val-a", "dress-val-b", ("is shiny, ", "fit and Flare."))
    assert split.triplets[0].texts[0] == split.triplets[0].query_text == "Is shiny and fit and Flare"
    assert {len(triplet.texts) for triplet in split.triplets} == {4}
    assert [len(part.triplets) for part in split.sets] == [3, 3, 3]
    assert set(split.images()) <= split.paths.keys()


def test_fashioniq_val_protocols_gallery_is_in_the_split_files_order(fashioniq: Path) -> None:
    split = DATASETS["fashioniq"].load(fashioniq, "val", DATASETS["fashioniq"].protocol("val"))
    assert galleries(split)["dress"] == ("dress-val-c", "dress-val-b", "dress-val-a", "shared")
    assert set(split.images()) <= split.paths.keys()


def test_fashioniq_train_pools_the_categories(fashioniq: Path) -> None:
    for gallery in ("original", "val"):
        split = DATASETS["fashioniq"].load(fashioniq, "train", DATASETS["fashioniq"].protocol(gallery))
        assert galleries(split) == {"dress": (), "shirt": (), "toptee": ()}
        assert len(split.triplets) == 9
        assert set(split.paths) == set(split.triplet_images())


def test_fashioniq_test_has_no_target(fashioniq: Path) -> None:
    split = DATASETS["fashioniq"].load(fashioniq, "test")
    assert {triplet.target for triplet in split.triplets} == {None}


def test_fashioniq_finds_the_image_files_of_every_mirror(fashioniq: Path) -> None:
    images = fashioniq / "images"
    for file in ("dress-val-a.jpg", "dress/dress-val-b.jpg", "dress-val-c.png", "toptee/shirt-val-a.JPEG"):
        path = images / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for both in ("shirt-val-b.png", "shirt-val-b.jpg", "shirt-val-b.txt", "shirt/shirt-val-b.jpg"):
        path = images / both
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    paths = DATASETS["fashioniq"].load(fashioniq, "val").paths
    assert paths["dress-val-a"] == images / "dress-val-a.jpg"
    assert paths["dress-val-b"] == images / "dress" / "dress-val-b.jpg"
    assert paths["dress-val-c"] == images / "dress-val-c.png"
    assert paths["shirt-val-a"] == images / "toptee" / "shirt-val-a.JPEG"
    assert paths["shirt-val-b"] == images / "shirt-val-b.jpg"
    assert paths["toptee-val-a"] == images / "toptee-val-a.jpg"  # nowhere: where it should be


def test_shoes_names_images_by_their_path(shoes: Path, tmp_path: Path) -> None:
    split = DATASETS["shoes"].load(shoes, "val")
    names = tuple(f"womens/clogs/{number}/img_womens_clogs_val_{number}.jpg" for number in range(4))
    assert galleries(split) == {"shoes": names}
    assert split.triplets == (
        Triplet(names[0], names[2], ("is more of a textured material",)),
        Triplet(names[1], names[1], (" ",)),
    )
    assert split.paths[names[0]] == shoes / "images" / names[0]
    folders = {"images": tmp_path / "raw"}
    assert DATASETS["shoes"].load(shoes, "val", folders=folders) == split  # the folder does not exist
    (tmp_path / "raw").mkdir()
    elsewhere = DATASETS["shoes"].load(shoes, "val", folders=folders)
    assert elsewhere.paths[names[0]] == tmp_path / "raw" / names[0]
    assert galleries(DATASETS["shoes"].load(shoes, "train")) == {"shoes": ()}


def test_cirr_has_members_and_pair_ids(cirr: Path) -> None:
    split = DATASETS["cirr"].load(cirr, "val")
    names = tuple(f"dev-{number}-0-img{number % 2}" for number in range(8))
    assert galleries(split) == {"cirr": names}
    caption = "show three bottles of soft drink"
    assert split.triplets[0] == Triplet(names[0], names[2], (caption,), 12060, names[:5])
    assert split.triplets[0].texts == (caption,)
    assert split.paths[names[0]] == cirr / "dev" / f"{names[0]}.png"


def test_fashioniqs_val_gallery_does_not_change_other_data_sets(cirr: Path) -> None:
    assert DATASETS["cirr"].load(cirr, "val", DATASETS["cirr"].protocol("val")) == DATASETS["cirr"].load(cirr, "val")


def test_cirr_test1_has_no_target_and_keeps_the_blank_caption(cirr: Path) -> None:
    split = DATASETS["cirr"].load(cirr, "test1")
    assert [(triplet.pair_id, triplet.target, triplet.captions) for triplet in split.triplets] == [
        (12060, None, ("show three bottles of soft drink",)),
        (27098, None, (" ",)),
    ]


def test_cirr_train_has_paths_for_members_too(cirr: Path) -> None:
    split = DATASETS["cirr"].load(cirr, "train")
    assert galleries(split) == {"cirr": ()}
    assert len(split.paths) == 8
    assert split.paths["train-5-0-img1"] == cirr / "train" / "34" / "train-5-0-img1.png"


@pytest.mark.parametrize("base", ["", "img_raw", "cirr", "cirr/img_raw"])
def test_cirr_finds_the_image_folders_of_every_layout(cirr: Path, base: str) -> None:
    (cirr / base / "dev").mkdir(parents=True)
    assert DATASETS["cirr"].load(cirr, "val").paths["dev-0-0-img0"] == cirr / base / "dev" / "dev-0-0-img0.png"
    assert DATASETS["cirr"].load(cirr, "train").paths["train-0-0-img0"].parts[-4:-1] == (cirr.name, "train", "34")


def test_cirr_captions_may_lie_directly_below_the_root(cirr: Path) -> None:
    expected = DATASETS["cirr"].load(cirr, "val")
    for kind in ("captions", "image_splits"):
        shutil.move(cirr / "cirr" / kind, cirr / kind)
    assert DATASETS["cirr"].load(cirr, "val") == expected


@pytest.mark.parametrize("dataset", DATASETS)
def test_data_may_lie_one_level_down(roots: dict[str, Path], dataset: str) -> None:
    if dataset not in roots:
        pytest.skip(f"conftest.py draws no small {dataset}")
    root = roots[dataset]
    assert DATASETS[dataset].load(root.parent, "val") == DATASETS[dataset].load(root, "val")


@pytest.mark.parametrize(("dataset", "file"), FILES)
def test_a_byte_order_mark_is_accepted(roots: dict[str, Path], dataset: str, file: str) -> None:
    expected = DATASETS[dataset].load(roots[dataset], "val")
    path = roots[dataset] / file
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert DATASETS[dataset].load(roots[dataset], "val") == expected


def test_a_gallery_holds_an_image_once(fashioniq: Path) -> None:
    expected = DATASETS["fashioniq"].load(fashioniq, "val")
    change(fashioniq / ANNOTATIONS["fashioniq"][1], lambda names: names.append(names[0]))
    assert DATASETS["fashioniq"].load(fashioniq, "val") == expected
