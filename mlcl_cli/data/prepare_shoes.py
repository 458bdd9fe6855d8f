"""Shoes: from the raw download to the annotations that the other commands read (DATASETS.md, Section 3)."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from mlcl_cli.data.annotations import ImageName, Record, Text, image_name, read_records, read_text
from mlcl_cli.data.definition import Folders, Prepared
from mlcl_cli.data.layout import scan
from mlcl_cli.errors import DataError, some
from mlcl_cli.progress import Progress

logger = logging.getLogger(__name__)

NAME_LISTS = {"train": "train_im_names.txt", "val": "eval_im_names.txt"}
CAPTIONS = "relative_captions_shoes.json"
REMEDY = "Set shoes.images and shoes.annotations to where the raw download lies"
MAX_DEPTH = 4  # one folder more than any known layout: an end to folders that link to their own parents


class ShoesRecord(Record):
    """A triplet, raw or prepared."""

    target: ImageName = Field(alias="ImageName")
    reference: ImageName = Field(alias="ReferenceImageName")
    caption: Text = Field(alias="RelativeCaption")


def prepare_shoes(root: Path, folders: Folders, progress: Progress) -> Prepared:
    """The content of split.train.json, split.val.json, triplet.train.json and triplet.val.json in `root`/annotations.

    `folders` holds the raw download's "images" and "annotations"; paths are relative to the images. Triplets whose
    images are not both in one split are dropped and counted.
    Raises DataError if the download is damaged, a listed name has no file, a name is in both lists, or a split would
    have no triplet.
    """
    annotations, output = folders["annotations"], root / "annotations"
    lists = {split: _listed_names(annotations / file) for split, file in NAME_LISTS.items()}
    if both := sorted(set(lists["train"]) & set(lists["val"])):
        raise DataError(
            f"lists images that are also in {NAME_LISTS['train']} ({len(both):,}): {some(both)}",
            where=annotations / NAME_LISTS["val"],
            remedy="Validation images must not be trained on; take the name lists from the original download",
        )
    records = read_records(annotations / CAPTIONS, ShoesRecord, lambda record, _: record, remedy=REMEDY)
    paths = _find_files(folders["images"], [*lists["train"], *lists["val"]], progress)
    kept = {split: _both_in(names, records) for split, names in lists.items()}
    contents: dict[Path, bytes] = {}
    for split, names in lists.items():
        if not kept[split]:
            what = f"no triplet has both of its images in {split}"
            raise DataError(what, where=annotations / CAPTIONS, remedy=REMEDY)
        contents[output / f"split.{split}.json"] = _lines([paths[name] for name in names])
    for split, triplets in kept.items():
        contents[output / f"triplet.{split}.json"] = _lines([_with_paths(record, paths) for record in triplets])
    counts = {split: len(triplets) for split, triplets in kept.items()}
    return Prepared(
        images={split: len(names) for split, names in lists.items()},
        triplets=counts | {"dropped": len(records) - sum(counts.values())},
        target_is_reference=sum(
            paths[record.target] == paths[record.reference] for triplets in kept.values() for record in triplets
        ),
        contents=contents,
    )


def _both_in(names: Sequence[str], records: Sequence[ShoesRecord]) -> list[ShoesRecord]:
    listed = set(names)
    return [record for record in records if {record.target, record.reference} <= listed]


def _with_paths(record: ShoesRecord, paths: Mapping[str, str]) -> dict[str, str]:
    by_path = {"target": paths[record.target], "reference": paths[record.reference]}
    return record.model_copy(update=by_path).model_dump(by_alias=True)


def _listed_names(path: Path) -> tuple[str, ...]:
    lines = [line.strip() for line in read_text(path, remedy=REMEDY).split("\n")]
    names = [image_name(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line]
    if not names:
        raise DataError("lists no images", where=path, remedy=REMEDY)
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
    several = [name for name in names if len(places[name]) > 1]
    if several:
        example = min(places[several[0]])
        count = "1 listed image is" if len(several) == 1 else f"{len(several):,} listed images are"
        logger.warning(f"{count} in more than one folder; using the first in path order, such as {example}")
    return {name: image_name(min(paths), str(images)) for name, paths in places.items()}


def _walk(folder: Path, below: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Name and path of every file, in the file system's order; broken links are skipped."""
    for entry in scan(folder, REMEDY):
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:
            continue
        if is_folder and depth < MAX_DEPTH:
            yield from _walk(folder / entry.name, f"{below}{entry.name}/", depth + 1)
        elif is_file:
            yield entry.name, below + entry.name


def _lines(values: Sequence[object]) -> bytes:
    """JSON with one value per line: small, and a diff shows where it differs."""
    return ("[\n" + ",\n".join(json.dumps(value, ensure_ascii=False) for value in values) + "\n]\n").encode()
