"""A folder of images as a catalog: an image's path below it is its id."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa

from mlcl_cli.catalog.field_types import Fields, ParquetFields
from mlcl_cli.catalog.source import ImageFile
from mlcl_cli.catalog.stream import Chunk, make_entry
from mlcl_cli.data.table_files import ROWS_AT_ONCE
from mlcl_cli.errors import DataError
from mlcl_cli.formatting import counted
from mlcl_cli.progress import NOTICE
from mlcl_cli.suggestions import shown

logger = logging.getLogger(__name__)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif")


@dataclass(frozen=True)
class FolderReader:
    """All images below a folder, in the order of their paths; hidden files and folders are left out."""

    path: Path
    repeated_remedy: str = ""  # paths do not repeat
    empty_remedy: str = f"Name the folder with your images: {', '.join(IMAGE_SUFFIXES)}"

    def fields(self) -> Fields:
        """See Reader."""
        return ParquetFields(pa.schema([]))

    def chunks(self, *, with_fields: bool) -> Iterator[Chunk]:
        """See Reader. The first time, without fields, a message says which files are left out."""
        others = _Others()
        names = (name for name in _walk(self.path, "", frozenset()) if is_image(name) or others.add(name))
        while part := list(islice(names, ROWS_AT_ONCE)):
            files = [ImageFile(name, f"{self.path}/{name}") for name in part]
            yield Chunk([make_entry(file.location, None, (), [file]) for file in files], {})
        if others.count and not with_fields:
            what = f"left out {counted(others.count, 'file')} with another ending than images have"
            logger.log(NOTICE, f"{self.path}: {what}, such as {shown(others.first)}")


def is_image(name: str) -> bool:
    """Whether a file's name ends as those of images do."""
    return name.lower().endswith(IMAGE_SUFFIXES)


@dataclass
class _Others:
    first: str = ""
    count: int = 0

    def add(self, name: str) -> bool:
        self.first = self.first or name
        self.count += 1
        return False


def _walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """The paths of files in their order as text, which needs no more memory than the largest folder's names.

    Links are followed, but not to a folder `above`, by device and inode.
    """
    try:
        status = folder.stat()
        if (key := (status.st_dev, status.st_ino)) in above:
            return
        with os.scandir(folder) as entries:
            found = [entry.name + "/" * entry.is_dir() for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=folder, remedy="Check its permissions") from error
    for name in sorted(found):
        if name.endswith("/"):
            yield from _walk(folder / name, prefix + name, above | {key})
        else:
            yield prefix + name
