"""The source of a catalog, by what its path names: a folder of images, a table, or archives."""

import re
from collections.abc import Iterator, Mapping, Sequence
from glob import glob
from itertools import product
from pathlib import Path

from mlcl_cli.catalog.archives import ArchiveReader
from mlcl_cli.catalog.columns import ID, IMAGE, OPTION, PRODUCT, given_columns
from mlcl_cli.catalog.folders import FolderReader, is_image
from mlcl_cli.catalog.stream import Reader, StreamSource
from mlcl_cli.catalog.tables import TableReader
from mlcl_cli.data.table_files import SUFFIXES
from mlcl_cli.errors import DataError, UsageError
from mlcl_cli.progress import NoProgress, Progress

ARCHIVE = ".tar"
NO_PROGRESS = NoProgress()
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")


def open_source(
    catalog: Path | Sequence[Path], columns: Mapping[str, str] | None = None, progress: Progress = NO_PROGRESS
) -> StreamSource:
    """The catalog in a folder of images, a table, one or several .tar files, or a folder of them.

    The path of .tar files may be a pattern, as WebDataset and the shell write them: `photos-{000..127}.tar` and
    `photos-*.tar`. `columns` are the names of the columns of ids, images and products (`parse_columns`).

    Rows are checked, with `progress`, when they are first needed.

    Raises UsageError for what `columns` or the path cannot mean, DataError for a file that is missing or damaged and
    for a column that does not exist.
    """
    columns = columns or {}
    given = [catalog] if isinstance(catalog, Path) else list(catalog)
    paths = [path for pattern in given for path in _matching(pattern)]
    if not paths:
        raise UsageError("names no file", where="CATALOG", remedy="Name a folder, a table or .tar files")
    path = paths[0]
    if len(paths) > 1 or (path.suffix.lower() == ARCHIVE and not path.is_dir()):
        if others := [path for path in paths if path.suffix.lower() != ARCHIVE]:
            what = "is not a .tar file, and only those can be several"
            raise UsageError(what, where=others[0], remedy="Name a folder or a table alone")
        return StreamSource(_archives(given[0] if len(given) == 1 else path, paths, columns), progress)
    if path.is_dir():
        return StreamSource(_folder(path, columns), progress)
    if path.exists() and path.suffix.lower() not in SUFFIXES:
        what = f"expected a folder of images, a table that ends in {', '.join(SUFFIXES)}, or a .tar file"
        is_compressed = ARCHIVE in path.suffixes or path.suffix.lower() == ".tgz"
        raise DataError(what, where=path, remedy="Decompress it" if is_compressed else "Convert it")
    return StreamSource(TableReader.open(path, columns), progress)


def _folder(path: Path, columns: Mapping[str, str]) -> Reader:
    names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_file())
    archives = [path / name for name in names if name.lower().endswith(ARCHIVE)]
    if not archives:
        if columns:
            raise UsageError("a folder of images has no columns", where=OPTION, remedy=f"Leave out {OPTION}")
        return FolderReader(path)
    if images := [name for name in names if is_image(name)]:
        what = f"has archives, such as {archives[0].name}, and images, such as {images[0]}"
        raise UsageError(what, where=path, remedy="Move one kind to a folder of its own")
    return _archives(path, archives, columns)


def _archives(path: Path, archives: Sequence[Path], columns: Mapping[str, str]) -> ArchiveReader:
    if IMAGE in columns:
        what = "the images of .tar files are their members, not in a column"
        raise UsageError(what, where=OPTION, remedy=f"Leave {IMAGE} out")
    found = given_columns({ID: ID, PRODUCT: PRODUCT} | dict(columns))
    return ArchiveReader(path, archives, found, id_is_set=ID in columns and found.id is not None)


def _matching(pattern: Path) -> Iterator[Path]:
    """The files that a pattern names, or the path itself if it exists or is no pattern.

    Raises DataError for a pattern that no file matches.
    """
    if pattern.exists() or not re.search(r"[{*?\[]", str(pattern)):
        yield pattern
        return
    for text in _without_braces(str(pattern)):
        if re.search(r"[*?\[]", text):
            if not (found := sorted(glob(text))):  # noqa: PTH207  # a Path has no glob of its own
                raise DataError("matches no file", where=text, remedy="Correct the path")
            yield from map(Path, found)
        else:
            yield Path(text)


def _without_braces(pattern: str) -> list[str]:
    """As the shell expands `{a,b}` and `{00..12}`."""
    options, end = [], 0
    for match in BRACES.finditer(pattern):
        options += [[pattern[end : match.start()]], _choices(match)]
        end = match.end()
    return ["".join(parts) for parts in product(*options, [pattern[end:]])]


def _choices(match: re.Match[str]) -> list[str]:
    if bounds := RANGE.fullmatch(match[1]):
        first, last = bounds.groups()
        width = len(first) if first.startswith("0") else 0
        return [f"{number:0{width}}" for number in range(int(first), int(last) + 1)]
    return match[1].split(",") if "," in match[1] else [match[0]]
