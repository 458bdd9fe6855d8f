"""Where a data set's files lie, and what its annotations must agree on."""

import os
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from pathlib import Path

from mlcl_cli.data.annotations import MEND, OnDefect, refuse
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.errors import DataError, some

ENDINGS = ("jpg", "jpeg", "png")


def find_root(root: Path, inner: str, marks: Sequence[str], remedy: str) -> Path:
    """`root`, or `root/inner` where the data lies one level down: whichever holds one of the folders `marks`.

    Raises DataError where `root` does not exist or has another layout, saying what it holds instead.
    """
    there = scan(root, remedy)
    for folder in (root, root / inner):
        if any(is_folder(folder / mark) for mark in marks):
            return folder
    sought = " nor ".join(f"{mark}/" for mark in (*marks, f"{inner}/{marks[0]}"))
    held = some(sorted(entry.name for entry in there)) or "nothing"
    raise DataError(f"holds neither {sought}, but {held}", where=root, remedy=remedy)


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder; one that may not be looked at is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def scan(folder: Path, remedy: str) -> list["os.DirEntry[str]"]:
    """The entries of `folder`. Raises DataError where it does not exist or cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError as error:
        raise DataError("does not exist", where=folder, remedy=remedy) from error
    except OSError as error:
        raise DataError(f"cannot be listed ({error.strerror})", where=folder, remedy=remedy) from error


def images_by_stem(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The image files of `folder` by name without ending, none if there is no such folder.

    Files that differ in their ending alone are in the order of `ENDINGS`. Raises DataError as `scan` does.
    """
    if not is_folder(folder):
        return {}
    files = [entry.name for entry in scan(folder, "Permit reading it")]
    endings = [(name, *name.rpartition(".")[::2]) for name in files]
    images = [(ENDINGS.index(end.lower()), name, stem) for name, stem, end in endings if end.lower() in ENDINGS]
    found: dict[str, tuple[Path, ...]] = {}
    for _, name, stem in sorted(images):
        found[stem] = (*found.get(stem, ()), folder / name)
    return found


def known_alone(
    source: Path, triplets: Sequence[Triplet], known: Container[str], listing: str, on_defect: OnDefect = refuse
) -> tuple[Triplet, ...]:
    """The triplets, in the order of `source`, all of whose images are in `known`.

    Where some are not, a DataError that tells all of their images goes to `on_defect`.
    """
    strays: dict[str, int] = {}
    kept = []
    for number, triplet in enumerate(triplets, 1):
        names = [name for name in (triplet.reference, triplet.target, *triplet.members) if name is not None]
        missing = [name for name in names if name not in known]
        for name in missing:
            strays.setdefault(name, number)
        if not missing:
            kept.append(triplet)
    if strays:
        first = some([f"{name!r} (record {number})" for name, number in strays.items()])
        count = "1 image is" if len(strays) == 1 else f"{len(strays):,} images are"
        on_defect(DataError(f"{count} not in {listing}: {first}", where=source, remedy=MEND))
    return tuple(kept)


def make_split(
    dataset: str, name: str, sets: Sequence[QuerySet], files_of: Callable[[str], Path | tuple[Path, ...]]
) -> Split:
    """The split with the path of every image that its sets name; of several files, the first."""
    split = Split(dataset, name, tuple(sets), {})
    members = (member for triplet in split.triplets for member in triplet.members)
    files = {image: files_of(image) for image in (*split.images(), *members)}
    several = {image: found for image, found in files.items() if isinstance(found, tuple)}
    paths = {image: found[0] if isinstance(found, tuple) else found for image, found in files.items()}
    return replace(split, paths=paths, others={image: found[1:] for image, found in several.items() if found[1:]})
