"""Small data sets in the on-disk formats, and a tiny CLIP of OpenAI's own class, for tests."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 220), "grey": (128, 128, 128)}
CATEGORIES = ("dress", "shirt", "toptee")
SIZES = {
    "embed_dim": 16,
    "image_resolution": 32,
    "vision_layers": 1,
    "vision_width": 64,
    "vision_patch_size": 16,
    "context_length": 77,
    "vocab_size": 49408,
    "transformer_width": 64,
    "transformer_heads": 1,
    "transformer_layers": 1,
}


def tiny_clip(path: Path, seed: int = 0, **sizes: Any) -> Path:
    """A CLIP with random weights, in OpenAI's plain state-dict format."""
    from mlcl_cli.models.weights import import_clip

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = import_clip().model.CLIP(**{**SIZES, **sizes})
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    return path


def picture(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> Path:
    """A picture of two colors that `seed` chooses."""
    draw = random.Random(seed)
    image = Image.new("RGB", size, tuple(draw.randrange(256) for _ in range(3)))
    image.paste(tuple(draw.randrange(256) for _ in range(3)), (8, 8, 24, 20))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def fashioniq(root: Path, triplets: int = 10, images: int = 8) -> Path:
    """FashionIQ with `triplets` and `images` a category and split."""
    draw = random.Random(1)
    for number, category in enumerate(CATEGORIES):
        for split in ("train", "val", "test"):
            names = [f"{category[0]}{split}{image:02}" for image in range(images)]
            write_json(root / f"image_splits/split.{category}.{split}.json", names)
            records = []
            for _ in range(triplets):
                candidate, target = draw.sample(names, 2)
                record = {"candidate": candidate, "captions": [f"is {draw.choice([*COLOURS])}", "has long sleeves."]}
                records.append(record if split == "test" else {"target": target, **record})
            write_json(root / f"captions/cap.{category}.{split}.json", records)
            for position, name in enumerate(names):
                picture(root / f"images/{name}.jpg", 1000 * number + 10 * position + len(split))
    return root


def shoes(root: Path, train: int = 12, val: int = 8, triplets: int = 24) -> Path:
    """The raw Shoes download."""
    draw = random.Random(2)
    names = [f"img_womens_clogs_{number}.jpg" for number in range(train + val)]
    for position, name in enumerate(names):
        picture(root / "images/womens/clogs" / str(position % 3) / name, position)
    annotations = root / "annotations"
    annotations.mkdir(parents=True)
    (annotations / "train_im_names.txt").write_text("\n".join(names[:train]) + "\n")
    (annotations / "eval_im_names.txt").write_text("\n".join(names[train:]) + "\n")
    records = []
    for number in range(triplets):
        reference, target = draw.sample(names[:train] if number % 2 else names[train:], 2)
        caption = f"is {draw.choice([*COLOURS])}"
        records.append({"ImageName": target, "ReferenceImageName": reference, "RelativeCaption": caption})
    write_json(annotations / "relative_captions_shoes.json", records)
    return root


def cirr(root: Path, triplets: int = 12, images: int = 60) -> Path:
    """CIRR with `triplets` and `images` a split; the last test1 caption is blank."""
    draw = random.Random(3)
    pair = 0
    for split, folder in (("train", "train/7"), ("val", "dev"), ("test1", "test1")):
        names = [f"{split}-{number}-img0" for number in range(images)]
        places = {name: f"./{folder}/{name}.png" for name in names}
        write_json(root / f"cirr/image_splits/split.rc2.{split}.json", places)
        records: list[dict[str, Any]] = []
        for _ in range(triplets):
            members = draw.sample(names, 6)
            pair += 1
            records.append(
                {
                    "pairid": pair,
                    "reference": members[0],
                    "target_hard": members[1],
                    "target_soft": {members[1]: 1.0},
                    "caption": f"show {draw.choice([*COLOURS])} bottles",
                    "img_set": {"id": pair, "members": members, "reference_rank": 0, "target_rank": 1},
                }
            )
        if split == "test1":
            records[-1]["caption"] = " "
            for record in records:
                del record["target_hard"], record["target_soft"]
        write_json(root / f"cirr/captions/cap.rc2.{split}.json", records)
        for number, name in enumerate(names):
            picture(root / folder / f"{name}.png", number)
    return root


ASPECTS = ("cardinality", "addition", "viewpoint")


def circo(root: Path, queries: int = 12, images: int = 60) -> Path:
    """CIRCO with `queries` a split, up to three targets each, and one gallery of `images`."""
    draw = random.Random(4)
    ids = [7 * number + 3 for number in range(images)]
    listed = [{"license": 1, "file_name": f"{number:012}.jpg", "id": number} for number in ids]
    write_json(root / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", {"info": {}, "images": listed})
    for split in ("val", "test"):
        records: list[dict[str, Any]] = []
        for number in range(queries):
            reference, *targets = draw.sample(ids, 2 + number % 3)
            records.append(
                {
                    "reference_img_id": reference,
                    "target_img_id": targets[0],
                    "relative_caption": f"shows {draw.choice([*COLOURS])} things",
                    "shared_concept": f"{draw.choice([*COLOURS])} things",
                    "gt_img_ids": targets,
                    "id": number,
                    "semantic_aspects": draw.sample(ASPECTS, 1 + number % 2),
                }
            )
        if split == "test":
            for record in records:
                del record["target_img_id"], record["gt_img_ids"], record["semantic_aspects"]
        write_json(root / f"annotations/{split}.json", records)
    for number in ids:
        picture(root / f"COCO2017_unlabeled/unlabeled2017/{number:012}.jpg", number)
    return root


def fashion200k(root: Path, products: int = 6) -> Path:
    """Fashion200k with `products` of two views a category and split; the first two products share their caption."""
    draw = random.Random(5)
    (root / "labels").mkdir(parents=True)
    queries = []
    for category in ("dress", "jacket", "pants", "skirt", "top"):
        for split in ("train", "test"):
            lines = []
            for number in range(products):
                caption = f"{[*COLOURS][max(0, number - 1) % len(COLOURS)]} {category} no. {max(0, number - 1) // 4}"
                folder = f"women/{category}/{caption.replace(' ', '_')}/{split}{number}"
                views = [f"{folder}/{split}{number}_{view}.jpeg" for view in range(2)]
                lines += [f"{view}\t0.{draw.randrange(1, 100)}\t{caption}\n" for view in views]
                for view in views:
                    picture(root / view, draw.randrange(1000))
            (root / f"labels/{category}_{split}_detect_all.txt").write_text("".join(lines))
            files = [line.split("\t")[0] for line in lines]
            queries += [draw.sample(files, 2) for _ in range(4 * (split == "test"))]
    (root / "test_queries.txt").write_text("".join(f"{source} {target}\n" for source, target in queries))
    return root


MAKERS = {"fashioniq": fashioniq, "shoes": shoes, "cirr": cirr, "circo": circo, "fashion200k": fashion200k}

PROFILE = """\
dataset: {dataset}
roots:
  {dataset}: data
workspace: work
device: cpu
clip:
  model: clip.pt
finetune:
  epochs: 2
  batch_size: 8
  learning_rate: 1.0e-4
combiner:
  projection_dim: 8
  hidden_dim: 16
  epochs: 2
  batch_size: 8
  learning_rate: 1.0e-3
"""


def world(folder: Path, dataset: str, **sizes: int) -> Path:
    """A folder with data, a tiny CLIP and `mlcl.yaml`, ready for the commands."""
    MAKERS[dataset](folder / "data", **sizes)
    tiny_clip(folder / "clip.pt")
    (folder / "mlcl.yaml").write_text(PROFILE.format(dataset=dataset))
    return folder
