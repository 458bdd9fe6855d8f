"""Data sets in small, as the public downloads lay them out."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

CATEGORIES = ("dress", "shirt", "toptee")
Write = Callable[[Path, object], Path]


@pytest.fixture(scope="session")
def write() -> Write:
    """Writes a value as JSON, or bytes and texts as they are."""

    def write_value(path: Path, value: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
        return path

    return write_value


@pytest.fixture
def fashioniq(tmp_path: Path, write: Write) -> Path:
    """Three categories, three splits. `shared` is listed by toptee's train only; `spare` is in no triplet."""
    root = tmp_path / "fashionIQ_dataset"
    for category in CATEGORIES:
        for split in ("train", "val", "test"):
            a, b, c, spare = (f"{category}-{split}-{letter}" for letter in ("a", "b", "c", "spare"))
            triplets = [
                {"target": b, "candidate": a, "captions": ["is shiny, ", "fit and Flare."]},
                {"target": a, "candidate": c, "captions": ["", "is red"]},
                {"target": c, "candidate": "shared", "captions": ["is Long?", "."]},
            ]
            if split == "test":
                for triplet in triplets:
                    del triplet["target"]
            write(root / "captions" / f"cap.{category}.{split}.json", triplets)
            names = [c, spare, b, a] + ["shared"] * ((category, split) == ("toptee", "train"))
            write(root / "image_splits" / f"split.{category}.{split}.json", names)
    return root


@pytest.fixture
def shoes(tmp_path: Path, write: Write) -> Path:
    """Prepared."""
    root = tmp_path / "shoes"
    for split in ("train", "val"):
        names = [f"womens/clogs/{number}/img_womens_clogs_{split}_{number}.jpg" for number in range(4)]
        rows = [
            {
                "ImageName": names[2],
                "ReferenceImageName": names[0],
                "RelativeCaption": "is more of a textured material",
            },
            {"ImageName": names[1], "ReferenceImageName": names[1], "RelativeCaption": " "},
        ]
        write(root / "annotations" / f"split.{split}.json", names)
        write(root / "annotations" / f"triplet.{split}.json", rows)
    return root


@pytest.fixture
def cirr(tmp_path: Path, write: Write) -> Path:
    """An excerpt of each split's shape: the blank caption, a member twice, paths that begin with ./"""
    root = tmp_path / "cirr_dataset"
    for split, folder in (("train", "train/34"), ("val", "dev"), ("test1", "test1")):
        stem = folder.split("/")[0]
        names = [f"{stem}-{number}-0-img{number % 2}" for number in range(8)]
        records = [
            {
                "pairid": 12060,
                "reference": names[0],
                "target_hard": names[2],
                "target_soft": {names[2]: 1.0},
                "caption": "show three bottles of soft drink",
                "img_set": {"id": 36, "members": [*names[:5], names[1]], "reference_rank": 2, "target_rank": 3},
            },
            {
                "pairid": 27098,
                "reference": names[6],
                "target_hard": names[7],
                "target_soft": {},
                "caption": " ",
                "img_set": {"id": 310, "members": names[2:], "reference_rank": 0},
            },
        ]
        if split == "test1":
            for record in records:
                del record["target_hard"], record["target_soft"]
        write(root / "cirr" / "captions" / f"cap.rc2.{split}.json", records)
        paths = {name: f"./{folder}/{name}.png" for name in names}
        write(root / "cirr" / "image_splits" / f"split.rc2.{split}.json", paths)
    return root


@pytest.fixture
def circo(tmp_path: Path, write: Write) -> Path:
    """Four images, two queries a split; the first has two targets."""
    root = tmp_path / "CIRCO"
    images = [{"license": 3, "file_name": f"{number:012}.jpg", "id": number} for number in (42, 7, 355099, 9)]
    write(root / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", {"images": images, "licenses": []})
    for split in ("val", "test"):
        records = [
            {
                "reference_img_id": 7,
                "target_img_id": 355099,
                "relative_caption": "shows two people",
                "shared_concept": "a girl with an umbrella",
                "gt_img_ids": [355099, 42],
                "id": 0,
                "semantic_aspects": ["cardinality", "addition"],
            },
            {
                "reference_img_id": 42,
                "target_img_id": 9,
                "relative_caption": "is empty",
                "shared_concept": "a plate",
                "gt_img_ids": [9],
                "id": 1,
                "semantic_aspects": [],
            },
        ]
        if split == "test":
            for record in records:
                del record["target_img_id"], record["gt_img_ids"], record["semantic_aspects"]
        write(root / "annotations" / f"{split}.json", records)
    return root


@pytest.fixture
def fashion200k(tmp_path: Path, write: Write) -> Path:
    """Three dresses of which two share a caption, and one image in each other category."""
    root = tmp_path / "fashion200k"
    for split in ("train", "test"):
        for category in ("dress", "jacket", "pants", "skirt", "top"):
            lines = [f"women/{category}s/{split}/1_0.jpeg\t0.99\t black {category} \n"]
            if category == "dress":
                lines += [f"women/dresses/{split}/{end}.jpeg\t0.5\tred dress no. 1\n" for end in ("2_0", "2_1")]
            write(root / "labels" / f"{category}_{split}_detect_all.txt", "".join(lines).encode())
    queries = (
        "women/dresss/test/1_0.jpeg women/dresses/test/2_0.jpeg\nwomen/tops/test/1_0.jpeg women/skirts/test/1_0.jpeg\n"
    )
    write(root / "test_queries.txt", queries.encode())
    return root


@pytest.fixture
def roots(fashioniq: Path, shoes: Path, cirr: Path, circo: Path, fashion200k: Path) -> dict[str, Path]:
    """All of them, by name."""
    return {"fashioniq": fashioniq, "shoes": shoes, "cirr": cirr, "circo": circo, "fashion200k": fashion200k}
