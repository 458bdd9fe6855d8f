"""The commented profile that `mlcl init --from` writes for data of one's own."""

import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from mlcl_cli.config.load import inline
from mlcl_cli.config.template import own_template, rendered
from mlcl_cli.data.definition import TRAIN
from mlcl_cli.data.own_data import read
from mlcl_cli.data.own_tables import VAL, Columns, Tables
from mlcl_cli.data.records import Split
from mlcl_cli.data.table_files import TableFile
from mlcl_cli.data.table_guesses import Guess, guess_tables
from mlcl_cli.errors import DataError
from mlcl_cli.formatting import counted
from mlcl_cli.streams import printable

IMAGES_TRIED = 1_000


@dataclass(frozen=True)
class OwnProfile:
    """A profile's text, what was found, and the keys that the user must set or should look at."""

    text: str
    found: str
    unknown: list[str]
    doubtful: list[str]


def own_profile(path: Path, folder: Path) -> OwnProfile:
    """The profile for a table of triplets, to be written into `folder`.

    Raises DataError if the table cannot be read, or is no table of triplets.
    """
    guess = guess_tables(path.absolute())
    splits = {} if guess.unknown else _read(guess)
    facts, found = _facts(guess, splits)
    section = rendered(
        "template_own.yaml",
        name=inline(guess.name),
        facts=[printable(fact) for fact in facts],
        images=_entry(_relative(guess.images, folder) if guess.images else None, guess.notes.get("images")),
        triplets=_entry(_relative(guess.triplets, folder), None),
        gallery=_gallery(guess, folder),
        columns={role: _entry(_names(guess, role), guess.notes.get(f"columns.{role}")) for role in _roles(guess)},
        spare=None if guess.unknown else guess.notes.get("columns"),
        map_at="[5, 10]"
        if guess.several_targets
        else _commented("[]", "such as [5, 10], for queries with several targets"),
    )
    triplets = len(splits[TRAIN].triplets) if TRAIN in splits else None
    keys = [[f"datasets.{guess.name}.{key}" for key in keys] for keys in (guess.unknown, guess.doubtful)]
    return OwnProfile(own_template(printable(path.name), section, triplets), found, *keys)


def _roles(guess: Guess) -> list[str]:
    return list(dict.fromkeys(["reference", "target", "caption", *guess.columns]))


def _names(guess: Guess, role: str) -> str | list[str] | None:
    names = guess.columns.get(role, ())
    return list(names) if len(names) > 1 else names[0] if names else None


def _relative(path: Path, folder: Path) -> str:
    """The path from `folder`, unless the two have nothing in common."""
    path, folder = path.resolve(), folder.resolve()
    common = os.path.commonpath([path, folder])
    return str(path) if common == path.anchor else os.path.relpath(path, folder)


def _entry(value: str | list[str] | None, note: str | None) -> str:
    """A value as YAML with its comment; a value that is not known is left to set."""
    if value is None:
        return _commented("", f"TODO: {note or 'set it'}")
    return _commented(inline(value), note)


def _commented(text: str, note: str | None) -> str:
    return f"{text}  # {printable(note)}".lstrip() if note else text


def _gallery(guess: Guess, folder: Path) -> str:
    if guess.gallery is not None:
        return _entry(_relative(guess.gallery, folder), guess.notes.get("gallery"))
    return _commented("none", guess.notes.get("gallery", "every image that the triplets name; or a table of images"))


def _read(guess: Guess) -> dict[str, Split]:
    """The splits, read as commands do; what is wrong becomes a note."""
    splits: dict[str, Split] = {}
    assert guess.images is not None
    chosen = {role: names if role in ("target", "caption") else names[0] for role, names in guess.columns.items()}
    tables = Tables(
        name=guess.name,
        images=guess.images,
        triplets=guess.triplets,
        gallery=guess.gallery,
        columns=Columns(**chosen),  # type: ignore[arg-type]
        val_fraction=0.1,
        per_category=False,
    )
    defects: dict[str, DataError] = {}

    def keep(error: DataError) -> None:
        defects.setdefault(str(error), error)

    for name in (TRAIN, VAL):
        try:
            splits[name] = read(tables, guess.triplets, name, {}, keep)
        except DataError as error:
            keep(error)
    if defects:
        first = next(iter(defects.values()))
        guess.notes["defects"] = f"{counted(len(defects), 'defect')}, the first: {first}"
        guess.doubtful.append("triplets")
    return splits


def _facts(guess: Guess, splits: dict[str, Split]) -> tuple[list[str], str]:
    """What the data holds, as lines of comment and in one sentence."""
    table = TableFile(guess.triplets)
    rows = sum(1 for _ in table.rows(table.columns[:1]))
    facts = [f"{counted(rows, 'row')}; columns: {', '.join(map(repr, table.columns))}"]
    images = dict(chain.from_iterable(split.paths.items() for split in splits.values()))
    sizes = [f"{counted(len(split.triplets), 'triplet')} in {name}" for name, split in splits.items()]
    if splits:
        each = " (in train, one for each target)" if guess.several_targets else ""
        facts.append(f"{', '.join(sizes)}{each}, {counted(len(images), 'image')}")
        first = list(images.values())[:IMAGES_TRIED]
        exist = sum(path.is_file() for path in first)
        facts.append(f"{exist:,} of the first {counted(len(first), 'image')} exist")
    defects = [guess.notes["defects"]] if "defects" in guess.notes else []
    counts = [counted(rows, "row"), *sizes, *([counted(len(images), "image")] if splits else [])]
    return [*facts, *defects], ", ".join([*counts, *defects])
