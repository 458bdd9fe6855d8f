"""What a table of triplets seems to hold, for `mlcl init --from` (DATASETS.md, Section 6)."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.own_tables import NO_COLUMN, SPLITS
from mlcl_cli.data.table_files import SUFFIXES, TableFile, listed
from mlcl_cli.errors import DataError, some
from mlcl_cli.suggestions import shown

SAMPLE = 1_000  # rows
NAMES_TRIED = 20  # in each folder that may be the images'
FOLDERS_TRIED = 1_000
GENERIC = {"annotations", "captions", "data", "dataset", "table", "train", "triplet", "triplets"}
IMAGE_FOLDERS = ("images", "image", "photos", "pictures", "imgs", "img")
# What columns are called, without case, spaces and punctuation; a number at the end makes them several.
REQUIRED = {
    "reference": "reference ref referenceimage refimage referencename source src sourceimage candidate candidateimage "
    "query queryimage anchor input inputimage before",
    "target": "target tgt targetimage targetname targets targetimages targethard positive output outputimage "
    "groundtruth answer after",
    "caption": "caption captions text texts modifier modifiers modification modificationtext relativecaption "
    "instruction edit querytext prompt",
}
OPTIONAL = {
    "split": "split set subset partition fold",
    "category": "category cat categoryname type producttype class kind",
    "id": "id queryid qid tripletid pairid",
}
IMAGE = "image images imagename imagefile imagepath filename file path photo picture img"
NUMBERED = ("target", "caption")


@dataclass
class Guess:
    """The keys of a profile that could be guessed, and a note for some of them.

    `columns` are by field; `unknown` are required keys that the user must set, `doubtful` those to look at.
    """

    name: str
    triplets: Path
    images: Path | None = None
    gallery: Path | None = None
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    doubtful: list[str] = field(default_factory=list)
    several_targets: bool = False

    @property
    def unknown(self) -> list[str]:
        """The required keys that are not known."""
        missing = [f"columns.{role}" for role in REQUIRED if role not in self.columns]
        return [*([] if self.images else ["images"]), *missing]


def guess_tables(path: Path) -> Guess:
    """What the table of triplets and its surroundings seem to mean.

    Raises DataError if the table cannot be read, has no rows, or has none of the required columns.
    """
    table = TableFile(path)
    rows = [cells for _, cells in islice(table.rows(table.columns), SAMPLE)]
    if not rows:
        raise DataError("has no rows", where=path, remedy="Choose a table with a triplet in each row")
    columns = dict(zip(table.columns, zip(*rows, strict=True), strict=True))
    texts = {name: [text for cell in cells for text in cell] for name, cells in columns.items()}
    found = Guess(_dataset_name(path), path)
    _by_name(found, table.columns)
    _images(found, texts)
    _by_content(found, texts)
    if not found.columns:
        what = f"has no column of reference images, target images or captions; its columns are {listed(table.columns)}"
        raise DataError(what, where=path, remedy="Name them reference, target and caption")
    _optional(found, columns)
    _gallery(found)
    found.several_targets = any(
        len([text for name in found.columns.get("target", ()) for text in columns[name][row]]) > 1
        for row in range(len(rows))
    )
    used = {name for names in found.columns.values() for name in names}
    if spare := [name for name in table.columns if name not in used]:
        found.notes["columns"] = f"not used: {some([*map(shown, spare)])}"
    return found


def _dataset_name(path: Path) -> str:
    stems = [re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") for name in (path.stem, path.resolve().parent.name)]
    name = next((stem for stem in stems if stem and stem.lower() not in GENERIC), "own")
    return f"my-{name}" if name in DATASETS else name


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _named(usual: str, columns: Sequence[str], *, numbered: bool = False) -> list[list[str]]:
    """The columns with each of the usual names that occurs, several if they are numbered."""
    groups = {name: [column for column in columns if _plain(column) == name] for name in usual.split()}
    for name, group in groups.items():
        if numbered and not group:
            group += [column for column in columns if re.fullmatch(rf"{name}\d+", _plain(column))]
    return [group for group in groups.values() if group]


def _by_name(found: Guess, columns: Sequence[str]) -> None:
    for role, usual in REQUIRED.items():
        groups = _named(role, columns, numbered=role in NUMBERED) or _named(usual, columns, numbered=role in NUMBERED)
        if len(groups) == 1 and (len(groups[0]) == 1 or role in NUMBERED):
            found.columns[role] = tuple(groups[0])
        elif groups:
            found.notes[f"columns.{role}"] = f"one of {listed([name for group in groups for name in group])}"


def _images(found: Guess, texts: Mapping[str, Sequence[str]]) -> None:
    """Find the folder in which the first images of some column exist."""
    known = [*found.columns.get("reference", ()), *found.columns.get("target", ())]
    columns = known or [name for name in texts if name not in found.columns.get("caption", ())]
    folders = _folders(found.triplets.resolve().parent)
    counts = {
        folder: max(existing(folder, texts[name], NAMES_TRIED) for name in columns)
        for folder in folders[:FOLDERS_TRIED]
    }
    best = max(counts, key=lambda folder: counts[folder])
    if not counts[best]:
        first = next(iter(texts[columns[0]]), "")
        endings = [end for end in (".jpg", ".png", ".jpeg") if any(_is_file(folder, first + end) for folder in counts)]
        why = f": the names lack their extension, {endings[0]}" if endings else ""
        why = ": write / between folders, not a backslash" if "\\" in first else why
        found.notes["images"] = f"the first images, such as {shown(first)}, are in no folder below the table{why}"
        return
    found.images = best
    if others := [folder.name for folder, count in counts.items() if count == counts[best] and folder != best]:
        found.notes["images"] = f"the same names are also in {some([*map(shown, others)])}"
        found.doubtful.append("images")


def _folders(folder: Path) -> list[Path]:
    """Folders that may hold the images: the table's own, those below it to a depth of two, and usual ones beside it."""
    below = [Path(path) for first in _subfolders(folder) for path in (first, *_subfolders(first))]
    beside = [folder.parent / name for name in IMAGE_FOLDERS if (folder.parent / name).is_dir()]
    below.sort(key=lambda path: (path.name not in IMAGE_FOLDERS, len(path.parts), path))
    return [folder, *below, *beside]


def _subfolders(folder: Path | str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def _is_file(folder: Path, name: str) -> bool:
    return not name.startswith("/") and os.path.isfile(folder / name)  # noqa: PTH113  # False, not an error


def existing(folder: Path, names: Sequence[str], tried: int) -> int:
    """How many of the first distinct names are files in the folder."""
    return sum(_is_file(folder, name) for name in list(dict.fromkeys(names))[:tried])


def _by_content(found: Guess, texts: Mapping[str, Sequence[str]]) -> None:
    """Assign columns of file names and of free text to the roles that no name tells."""
    used = {name for names in found.columns.values() for name in names}
    spare = [name for name in texts if name not in used]
    files = [name for name in spare if found.images and _are_files(found.images, texts[name])]
    prose = [name for name in spare if name not in files and _is_prose(texts[name])]
    roles = [role for role in ("reference", "target") if role not in found.columns]
    for wanted, candidates, kind in ((roles, files, "file names"), (["caption"], prose, "free text")):
        wanted = [role for role in wanted if role not in found.columns]
        certain = len(candidates) == len(wanted) and not any(f"columns.{role}" in found.notes for role in wanted)
        for role, name in zip(wanted, candidates, strict=True) if certain else ():
            found.columns[role] = (name,)
            order = f"; a guess by their order: {' and '.join(wanted)} may be swapped" if len(wanted) > 1 else ""
            found.notes[f"columns.{role}"] = f"has {kind}{order}"
            found.doubtful.append(f"columns.{role}")
        for role in () if certain else wanted:
            found.notes.setdefault(f"columns.{role}", f"one of {listed(candidates or spare or list(texts))}")


def _are_files(folder: Path, names: Sequence[str]) -> bool:
    tried = list(dict.fromkeys(names))[:NAMES_TRIED]
    return bool(tried) and existing(folder, tried, NAMES_TRIED) >= len(tried) / 2


def _is_prose(texts: Sequence[str]) -> bool:
    return sum(" " in text.strip() for text in texts) >= max(1, len(texts) / 2)


def _optional(found: Guess, columns: Mapping[str, Sequence[tuple[str, ...]]]) -> None:
    """The optional columns; one with the default name that means something else becomes NO_COLUMN."""
    used = {name for names in found.columns.values() for name in names}
    spare = [name for name in columns if name not in used]
    fits = {"split": _are_splits, "category": _are_single, "id": _are_ids}
    for role, usual in OPTIONAL.items():
        named = [name for group in _named(usual, spare) for name in group]
        good = [name for name in named if fits[role](columns[name])]
        if good:
            found.columns[role] = (good[0],)
        elif role in named:
            found.columns[role] = (NO_COLUMN,)
            found.notes[f"columns.{role}"] = f"the values of the column {role!r} are not {UNFIT[role]}"


UNFIT = {"split": "train, val or test", "category": "one for each row", "id": "different in each row"}


def _are_splits(cells: Sequence[tuple[str, ...]]) -> bool:
    return all(len(cell) == 1 and cell[0].strip().lower() in SPLITS for cell in cells)


def _are_single(cells: Sequence[tuple[str, ...]]) -> bool:
    return all(len(cell) <= 1 for cell in cells)


def _are_ids(cells: Sequence[tuple[str, ...]]) -> bool:
    return all(len(cell) == 1 for cell in cells) and len(set(cells)) == len(cells)


def _gallery(found: Guess) -> None:
    """A table beside the triplets that lists images, if there is just one."""
    tables: dict[Path, str] = {}
    for path in sorted(found.triplets.resolve().parent.iterdir()) if found.images else ():
        if (
            path.suffix.lower() in SUFFIXES
            and path.name != found.triplets.name
            and (column := _image_column(found, path))
        ):
            tables[path] = column
    if len(tables) == 1:
        ((found.gallery, column),) = tables.items()
        found.notes["gallery"] = "the only other table here with a column of these images; none: what the triplets name"
        found.doubtful.append("gallery")
        found.columns["image"] = (column,)
    elif tables:
        found.notes["gallery"] = f"one of {some([shown(path.name) for path in tables])}, if it lists what to rank"
        found.doubtful.append("gallery")


def _image_column(found: Guess, path: Path) -> str | None:
    table = TableFile(path)
    try:
        if _named(REQUIRED["target"], table.columns, numbered=True):
            return None  # more triplets
        named = [name for group in _named(IMAGE, table.columns) for name in group]
        names = [text for _, (cell,) in islice(table.rows(named), SAMPLE) for text in cell] if len(named) == 1 else []
    except DataError:
        return None
    return named[0] if found.images and _are_files(found.images, names) else None
