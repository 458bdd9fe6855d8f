"""Shoes: the annotations that `mlcl prepare-shoes` writes from the raw download (DATASETS.md, Section 3)."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field, TypeAdapter

from mlcl_cli.data.annotations import ImageName, OnDefect, Record, Text, read_names, read_records, read_text, validated
from mlcl_cli.data.definition import DataSet, Folders, Preparation, Prepared, Published
from mlcl_cli.data.layout import find_root, is_folder, keep_listed, make_split, scan
from mlcl_cli.data.protocols import SHOES as PROTOCOL
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.errors import DataError, some
from mlcl_cli.progress import Progress

logger = logging.getLogger(__name__)

NAME = "shoes"
NAME_LISTS = {"train": "train_im_names.txt", "val": "eval_im_names.txt"}
CAPTIONS = "relative_captions_shoes.json"
REMEDY = "Set roots.shoes to the folder that contains annotations/, and run mlcl prepare-shoes once"
RAW_REMEDY = "Set roots.shoes to the folder of the raw download, or shoes.images and shoes.annotations to its parts"
MAX_DEPTH = 4  # one folder more than any known layout: stops at folders that link to their own parents


class _Triplet(Record):
    target: ImageName = Field(alias="ImageName")
    reference: ImageName = Field(alias="ReferenceImageName")
    caption: Text = Field(alias="RelativeCaption")


def read(root: Path, split: str, folders: Folders, on_defect: OnDefect) -> Split:
    """One query set; an image's name is its path below the image folder. The gallery is the whole split, none in train.

    If the folder of raw images (`folders`) does not exist, images are looked up beside the prepared annotations.
    Raises DataError if the prepared annotations are missing, damaged or contradictory.
    """
    root = find_root(root, "shoes", ("annotations",), REMEDY)
    listing, source = (root / "annotations" / f"{kind}.{split}.json" for kind in ("split", "triplet"))
    names = read_names(listing, REMEDY)
    triplets = read_records(source, _Triplet, _convert, remedy=REMEDY, on_defect=on_defect)
    triplets = keep_listed(source, triplets, Triplet.images, set(names), str(listing), on_defect)
    raw = folders.get("images")
    images = raw if raw and is_folder(raw) else root / "images"
    part = QuerySet(NAME, triplets, () if split == "train" else names)
    return make_split(NAME, split, [part], lambda name: (images / name,))


def _convert(record: _Triplet, _where: str) -> Triplet:
    return Triplet(record.reference, record.target, (record.caption,))


def prepare_shoes(root: Path, folders: Folders, progress: Progress) -> Prepared:
    """The content of split.train.json, split.val.json, triplet.train.json and triplet.val.json in `root`/annotations.

    `folders` holds the raw download's "images" and "annotations"; paths are relative to the images. Triplets whose
    images are not both in one split are dropped and counted.
    Raises DataError if the download is damaged, a listed name has no file, a name is in both lists, or a split would
    have no triplet.
    """
    annotations = folders["annotations"]
    lists = {split: _listed_names(annotations / file) for split, file in NAME_LISTS.items()}
    if both := sorted(set(lists["train"]) & set(lists["val"])):
        raise DataError(
            f"lists images that are also in {NAME_LISTS['train']} ({len(both):,}): {some(both)}",
            where=annotations / NAME_LISTS["val"],
            remedy="Validation images must not be trained on; take the name lists from the original download",
        )
    triplets = read_records(annotations / CAPTIONS, _Triplet, _convert, remedy=RAW_REMEDY)
    paths = _find_files(folders["images"], [*lists["train"], *lists["val"]], progress)
    kept: dict[str, list[Triplet]] = {}
    for split, names in lists.items():
        listed = set(names)
        kept[split] = [triplet for triplet in triplets if listed.issuperset(triplet.pair())]
        if not kept[split]:
            what = f"no triplet has both of its images in {split}"
            raise DataError(what, where=annotations / CAPTIONS, remedy=RAW_REMEDY)
    values: dict[str, list[object]] = {f"split.{split}": [paths[name] for name in lists[split]] for split in lists}
    for split in kept:
        values[f"triplet.{split}"] = [
            {
                "ImageName": paths[triplet.target or ""],
                "ReferenceImageName": paths[triplet.reference],
                "RelativeCaption": triplet.query_text,
            }
            for triplet in kept[split]
        ]
    counts = {split: len(kept[split]) for split in kept}
    return Prepared(
        images={split: len(names) for split, names in lists.items()},
        triplets=counts | {"dropped": len(triplets) - sum(counts.values())},
        target_is_reference=sum(triplet.target == triplet.reference for split in kept.values() for triplet in split),
        contents={root / "annotations" / f"{name}.json": _json_lines(values[name]) for name in values},
    )


def _listed_names(path: Path) -> tuple[str, ...]:
    adapter = TypeAdapter[str](ImageName)
    lines = [line.strip() for line in read_text(path, RAW_REMEDY).split("\n")]
    names = [validated(adapter, line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line]
    if not names:
        raise DataError("lists no images", where=path, remedy=RAW_REMEDY)
    distinct = tuple(dict.fromkeys(names))
    if len(distinct) < len(names):
        logger.warning(f"{path} repeats names ({len(names) - len(distinct):,}); each counts once")
    return distinct


def _find_files(images: Path, names: Sequence[str], progress: Progress) -> dict[str, str]:
    places: dict[str, list[str]] = {name: [] for name in names}
    with progress.bar("Looking for the images", len(names)) as advance:
        for name, path in _walk(images):
            if name in places:
                advance(not places[name])
                places[name].append(path)
    if missing := [name for name in names if not places[name]]:
        raise DataError(
            f"{len(missing):,} of {len(names):,} listed images are missing: {some(missing)}",
            where=images,
            remedy="Download them again, or set shoes.images to the folder of womens/, attributedata/ or womens_*/",
        )
    if several := [min(paths) for paths in places.values() if len(paths) > 1]:
        count = "1 listed image is" if len(several) == 1 else f"{len(several):,} listed images are"
        logger.warning(f"{count} in more than one folder; using the first in path order, such as {several[0]}")
    adapter = TypeAdapter[str](ImageName)
    return {name: validated(adapter, min(paths), str(images)) for name, paths in places.items()}


def _walk(folder: Path, below: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Name and path of every file, in the file system's order; broken links are skipped."""
    for entry in scan(folder, RAW_REMEDY):
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:
            continue
        if is_folder and depth < MAX_DEPTH:
            yield from _walk(folder / entry.name, f"{below}{entry.name}/", depth + 1)
        elif is_file:
            yield entry.name, below + entry.name


def _json_lines(values: Sequence[object]) -> bytes:
    """One value per line: small, and a diff shows where it differs."""
    return ("[\n" + ",\n".join(json.dumps(value, ensure_ascii=False) for value in values) + "\n]\n").encode()


SHOES = DataSet(
    name=NAME,
    root="data/shoes",
    read=read,
    splits=tuple(NAME_LISTS),
    protocols=(PROTOCOL,),
    published={"train": Published(8_990), "val": Published(1_761, 4_658)},
    folders={"images": "images", "annotations": "annotations"},
    preparation=Preparation(
        command="prepare-shoes",
        help="Turn the raw Shoes download into split and triplet files.",
        files=tuple(f"annotations/{kind}.{split}.json" for kind in ("split", "triplet") for split in NAME_LISTS),
        prepare=prepare_shoes,
    ),
)
