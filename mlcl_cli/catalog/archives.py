"""WebDataset archives as a catalog: members of a tar file with the same key are a product."""

import logging
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mlcl_cli.catalog.columns import Columns
from mlcl_cli.catalog.field_types import Fields, json_fields
from mlcl_cli.catalog.folders import is_image
from mlcl_cli.catalog.source import ImageFile
from mlcl_cli.catalog.stream import Chunk, Entry, make_entry
from mlcl_cli.data.table_files import MAX_LINE_BYTES, ROWS_AT_ONCE, value_cell
from mlcl_cli.errors import DataError
from mlcl_cli.progress import NOTICE
from mlcl_cli.safe_reading import open_regular, parse_json
from mlcl_cli.suggestions import did_you_mean, shown

logger = logging.getLogger(__name__)
MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)  # a key and an extension, split at the first point
REMEDY = "Decompress it, or download or make it again"
JSON, TEXT = "json", "txt"


class Member(NamedTuple):
    """A file in an archive: its sample's key, its extension in lower case, and where it is; `data` of JSON and text."""

    key: str
    extension: str
    image: ImageFile
    data: str


class Sample(NamedTuple):
    """A product's row, and its fields."""

    entry: Entry
    fields: dict[str, object]


@dataclass(frozen=True)
class ArchiveReader:
    """Tar files, one after another. `path` is what they were found by, for messages.

    A sample's images are read where they are. Its id is that of its JSON object, else its key.
    """

    path: Path
    archives: Sequence[Path]
    columns: Columns
    id_is_set: bool
    noticed: set[str] = field(default_factory=set)
    repeated_remedy: str = "Name a field of ids in the samples' JSON with --columns id=NAME"
    empty_remedy: str = "Expected samples such as 0001.jpg and 0001.json"

    def fields(self) -> Fields:
        """See Reader."""
        return json_fields()

    def chunks(self, *, with_fields: bool) -> Iterator[Chunk]:  # noqa: ARG002  # an id may be among the fields
        """See Reader."""
        samples = (sample for archive in self.archives for sample in self._samples(archive))
        while part := list(islice(samples, ROWS_AT_ONCE)):
            entries, records = zip(*part, strict=True)
            names = dict.fromkeys(name for record in records for name in record)
            yield Chunk(entries, {name: [record.get(name) for record in records] for name in names})

    def _samples(self, archive: Path) -> Iterator[Sample]:
        for key, members in groupby(self._members(archive), key=lambda member: member.key):
            place = f"{archive}, sample {shown(key)}"
            images, record = [], dict[str, object]()
            for member in members:
                if member.extension == JSON:
                    record |= _object(member.data, place)
                elif member.extension == TEXT:
                    record.setdefault(TEXT, member.data)
                else:
                    images.append(member.image)
            yield self._sample(place, key, images, record)

    def _sample(self, place: str, key: str, images: Sequence[ImageFile], record: dict[str, object]) -> Sample:
        own_id = record.get(self.columns.id or "")
        product = record.get(self.columns.product or "")
        fields = {name: value for name, value in record.items() if name and name not in self.columns.names}
        try:
            ids = value_cell(own_id) if own_id is not None or self.id_is_set else (key,)
            entry = make_entry(place, ids, value_cell(product), images)
        except TypeError as error:
            entry = Entry(place, "", "", (), str(error))
        if own_id is None and self.id_is_set:
            entry = entry._replace(defect=f"has no {self.columns.id!r}{did_you_mean(self.columns.id, record)}")
        return Sample(entry, fields)

    def _members(self, archive: Path) -> Iterator[Member]:
        """The images, JSON and texts of an archive. Raises DataError if it is damaged, and for a link."""
        try:
            with open_regular(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                while (info := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # else all stay in memory
                    if not info.isdir() and (member := self._member(archive, tar, info)):
                        yield member
                _require_end(archive, file, tar.offset)
        except (tarfile.TarError, EOFError) as error:
            raise DataError(f"is not a tar file that can be read ({error})", where=archive, remedy=REMEDY) from error
        except OSError as error:
            what = f"cannot be read ({error.strerror or error})"
            raise DataError(what, where=archive, remedy="Correct the path, or check its permissions") from error

    def _member(self, archive: Path, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member | None:
        match = MEMBER.fullmatch(info.name.removeprefix("./"))
        if match is None:  # hidden, such as what macOS adds, or without an extension
            return None
        key, extension = match[1], match[2].lower()
        if extension not in (JSON, TEXT) and not is_image(f".{extension}"):
            if extension not in self.noticed:
                self.noticed.add(extension)
                logger.log(NOTICE, f"{archive}: members such as {shown(info.name)} are left out")
            return None
        place = f"{archive}, member {shown(info.name)}"
        if not info.isreg() or info.issparse():
            remedy = "Make the archive with tar --dereference --hard-dereference"
            raise DataError("is a link or has holes", where=place, remedy=remedy)
        image = ImageFile(f"{archive.name}/{info.name}", str(archive), info.offset_data, info.size)
        return Member(key, extension, image, "" if is_image(f".{extension}") else _text(tar, info, place))


def _text(tar: tarfile.TarFile, info: tarfile.TarInfo, place: str) -> str:
    if info.size > MAX_LINE_BYTES:
        what = f"is larger than {MAX_LINE_BYTES // 2**20} MiB"
        raise DataError(what, where=place, remedy="Leave it out of the archive")
    file = tar.extractfile(info)
    assert file is not None, "a regular file"
    try:
        return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", where=place, remedy="Save it as UTF-8") from error


def _object(text: str, place: str) -> Mapping[str, object]:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise DataError(f"its .json is not JSON ({error})", where=place, remedy="Fix it") from error
    if not isinstance(value, dict):
        raise DataError("its .json is not an object", where=place, remedy="Fix it")
    return value


def _require_end(archive: Path, file: BinaryIO, offset: int) -> None:
    """tarfile takes a damaged header for the end of the archive."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        what = f"is not a tar file that can be read (damaged after {offset:,} bytes)"
        raise DataError(what, where=archive, remedy=REMEDY)
