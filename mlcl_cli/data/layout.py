"""Where a data set's files are, and what its annotations must agree on."""

import os
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mlcl_cli.data.annotations import FIX_FILE, OnDefect
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.errors import DataError, some

EXTENSIONS = (".jpg", ".jpeg", ".png")
is_folder = os.path.isdir  # False, not an error as `Path.is_dir`, where that cannot be determined


def find_root(root: Path, inner: str, marks: Sequence[str], remedy: str) -> Path:
    """`root`, or `root/inner` if the data is one level down: whichever holds one of the folders `marks`.

    Raises DataError if `root` does not exist or has another layout, saying what it holds instead.
    """
    entries = scan(root, remedy)
    for folder in (root, root / inner):
        if any(is_folder(folder / mark) for mark in marks):
            return folder
    *others, last = (f"{mark}/" for mark in (*marks, f"{inner}/{marks[0]}"))
    contents = some(sorted(entry.name for entry in entries)) or "nothing"
    raise DataError(f"expected {', '.join(others)} or {last}, found {contents}", where=root, remedy=remedy)


def scan(folder: Path, remedy: str) -> list["os.DirEntry[str]"]:
    """The entries of `folder`. Raises DataError if it does not exist or cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError as error:
        raise DataError("does not exist", where=folder, remedy=remedy) from error
    except OSError as error:
        raise DataError(f"cannot be listed ({error.strerror})", where=folder, remedy=remedy) from error


def images_by_stem(folders: Iterable[Path]) -> dict[str, tuple[Path, ...]]:
    """The image files by name without extension, the one that is used first: by folder, then by extension.

    Raises DataError like `scan`; a folder that does not exist has no images.
    """
    by_stem: dict[str, tuple[Path, ...]] = {}
    for folder in filter(is_folder, folders):
        files = [folder / entry.name for entry in scan(folder, "Make it readable")]
        ranks = {path: EXTENSIONS.index(end) for path in files if (end := path.suffix.lower()) in EXTENSIONS}
        for path in sorted(ranks, key=lambda path: (ranks[path], path.name)):
            by_stem[path.stem] = (*by_stem.get(path.stem, ()), path)
    return by_stem


def keep_listed(
    source: Path,
    triplets: Sequence[Triplet],
    names_of: Callable[[Triplet], Iterable[str]],
    listed: Container[str],
    listing: str,
    on_defect: OnDefect,
) -> tuple[Triplet, ...]:
    """The triplets of the file `source` whose `names_of` are all listed, in order.

    If some are not, one DataError that names all of the missing images goes to `on_defect`.
    """
    missing: dict[str, int] = {}
    kept = []
    for number, triplet in enumerate(triplets, 1):
        unlisted = [name for name in names_of(triplet) if name not in listed]
        for name in unlisted:
            missing.setdefault(name, number)
        if not unlisted:
            kept.append(triplet)
    if missing:
        first = some([f"{name!r} (record {number})" for name, number in missing.items()])
        count = "1 image is" if len(missing) == 1 else f"{len(missing):,} images are"
        on_defect(DataError(f"{count} not in {listing}: {first}", where=source, remedy=FIX_FILE))
    return tuple(kept)


def make_split(dataset: str, name: str, sets: Sequence[QuerySet], files_of: Callable[[str], tuple[Path, ...]]) -> Split:
    """The split with the path of every image that its sets name; of several files, the first.

    A query without an id gets its pair id, else its number from 0 up; one of several sets also gets the set's name.
    """
    split = Split(dataset, name, tuple(_with_ids(part, f"{part.name}/" * (len(sets) > 1)) for part in sets), {})
    further = (image for triplet in split.triplets for image in (*triplet.other_targets, *triplet.members))
    files = {image: files_of(image) for image in (*split.images(), *further)}
    paths = {image: places[0] for image, places in files.items()}
    return replace(split, paths=paths, others={image: places[1:] for image, places in files.items() if places[1:]})


def _with_ids(part: QuerySet, prefix: str) -> QuerySet:
    triplets = (
        replace(triplet, query_id=f"{prefix}{number if triplet.pair_id is None else triplet.pair_id}")
        for number, triplet in enumerate(part.triplets)
    )
    return part if all(triplet.query_id for triplet in part.triplets) else replace(part, triplets=tuple(triplets))
