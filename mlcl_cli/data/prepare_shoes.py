"""Shoes: from the raw download to the annotations that the other commands read (DATASETS.md, Section 3)."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlcl_cli.atomic_files import write_files
from mlcl_cli.data.annotations import Record, image_name, read_records, read_text
from mlcl_cli.data.layout import scan
from mlcl_cli.errors import DataError, some
from mlcl_cli.progress import Progress

logger = logging.getLogger(__name__)

NAME_LISTS = {"train": "train_im_names.txt", "val": "eval_im_names.txt"}
CAPTIONS = "relative_captions_shoes.json"
REMEDY = "Set shoes.images and shoes.annotations to where the raw download lies"
DEEPEST = 4  # one folder more than any known layout: an end to folders that link to their own parents


@dataclass(frozen=True)
class PreparedShoes:
    """What was written: counts by split, and how many triplets were dropped or have target = reference."""

    images: Mapping[str, int]
    triplets: Mapping[str, int]
    target_is_reference: int
    files: tuple[Path, ...]


def prepare_shoes(images: Path, annotations: Path, output: Path, progress: Progress) -> PreparedShoes:
    """Writes split.train.json, split.val.json, triplet.train.json and triplet.val.json into `output`, all or none.

    `images` and `annotations` are the raw download's folders; paths are written relative to `images`. Triplets whose
    images are not both in one split are dropped and counted.
    Raises DataError where the download is damaged, a listed name has no file, a name is in both lists, or a split
    would have no triplet; MachineError where `output` cannot be written. Nothing is written then.
    """
    prepared, contents = read_raw_shoes(images, annotations, output, progress)
    write_files(contents)
    return prepared


def read_raw_shoes(
    images: Path, annotations: Path, output: Path, progress: Progress
) -> tuple[PreparedShoes, dict[Path, bytes]]:
    """What `prepare_shoes` would return, and the content of each file that it would write. Writes nothing.

    Raises DataError as `prepare_shoes` does.
    """
    lists = {split: _listed_names(annotations / file) for split, file in NAME_LISTS.items()}
    if both := sorted(set(lists["train"]) & set(lists["val"])):
        raise DataError(
            f"lists images that {NAME_LISTS['train']} lists too ({len(both):,}): {some(both)}",
            where=annotations / NAME_LISTS["val"],
            remedy="Validation images must not be trained on; take the name lists from the original download",
        )
    records = read_records(annotations / CAPTIONS, remedy=REMEDY)
    paths = _find_files(images, [*lists["train"], *lists["val"]], progress)
    split_of = {name: split for split, names in lists.items() for name in names}
    triplets: dict[str, list[dict[str, str]]] = {split: [] for split in lists}
    for target, reference, caption in map(_raw_triplet, records):
        split = split_of.get(target)
        if split is not None and split == split_of.get(reference):
            row = {"ImageName": paths[target], "ReferenceImageName": paths[reference], "RelativeCaption": caption}
            triplets[split].append(row)
    for split, rows in triplets.items():
        if not rows:
            raise DataError(
                f"no triplet has both of its images in {split}", where=annotations / CAPTIONS, remedy=REMEDY
            )
    contents: dict[Path, bytes] = {
        output / f"split.{split}.json": _lines([paths[name] for name in names]) for split, names in lists.items()
    }
    contents |= {output / f"triplet.{split}.json": _lines(rows) for split, rows in triplets.items()}
    kept = [row for rows in triplets.values() for row in rows]
    counts = {split: len(rows) for split, rows in triplets.items()}
    prepared = PreparedShoes(
        images={split: len(names) for split, names in lists.items()},
        triplets=counts | {"dropped": len(records) - len(kept)},
        target_is_reference=sum(row["ImageName"] == row["ReferenceImageName"] for row in kept),
        files=tuple(contents),
    )
    return prepared, contents


def _raw_triplet(record: Record) -> tuple[str, str, str]:
    return record.image("ImageName"), record.image("ReferenceImageName"), record.text("RelativeCaption")


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
    found: dict[str, list[str]] = {name: [] for name in names}
    with progress.bar("Looking for the images", len(names)) as advance:
        for name, path in _walk(images):
            if name in found:
                advance(not found[name])
                found[name].append(path)
    if missing := [name for name in names if not found[name]]:
        raise DataError(
            f"{len(missing):,} of {len(names):,} listed images have no file: {some(missing)}",
            where=images,
            remedy="Download them again, or set shoes.images to what holds womens/, attributedata/ or womens_*/",
        )
    twice = [name for name in names if len(found[name]) > 1]
    if twice:
        example = min(found[twice[0]])
        count = "1 listed image lies" if len(twice) == 1 else f"{len(twice):,} listed images lie"
        logger.warning(f"{count} in several folders; the first in path order is taken, as {example}")
    return {name: image_name(min(places), str(images)) for name, places in found.items()}


def _walk(folder: Path, below: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Name and path of every file, in the file system's order; a link that leads nowhere is none."""
    for entry in scan(folder, REMEDY):
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:
            continue
        if is_folder and depth < DEEPEST:
            yield from _walk(folder / entry.name, f"{below}{entry.name}/", depth + 1)
        elif is_file:
            yield entry.name, below + entry.name


def _lines(values: Sequence[object]) -> bytes:
    """JSON with one value a line: small, and a difference shows where it is."""
    return ("[\n" + ",\n".join(json.dumps(value, ensure_ascii=False) for value in values) + "\n]\n").encode()
