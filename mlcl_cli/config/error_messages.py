"""pydantic's errors in plain words, each at its line of the profile or its `--set`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from mlcl_cli.config.schema import CONTRADICTION, Profile
from mlcl_cli.config.strict_yaml import KeyPath
from mlcl_cli.config.suggestions import SYNONYMS, did_you_mean, listed, nearest, printable, shown
from mlcl_cli.config.types import CLIP_NAMES


def _walk(model: type[BaseModel], above: KeyPath = ()) -> Iterator[tuple[KeyPath, FieldInfo]]:
    for name, info in model.model_fields.items():
        yield (*above, name), info
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _walk(info.annotation, (*above, name))


FIELDS: Mapping[KeyPath, FieldInfo] = dict(_walk(Profile))
SECTIONS: Mapping[KeyPath, list[str]] = {
    above: [key[-1] for key in FIELDS if key[:-1] == above] for above in {key[:-1] for key in FIELDS}
}
_LEAVES: tuple[KeyPath, ...] = tuple(key for key in FIELDS if key not in SECTIONS)
KEYS: tuple[str, ...] = tuple(".".join(key) for key in _LEAVES)


def choices(key: str) -> list[str]:
    """The words that `key` takes; empty where it takes none, or a list of them."""
    if key == "clip.model":
        return [*CLIP_NAMES]
    annotation = FIELDS[tuple(key.split("."))].annotation
    return ["true", "false"] if annotation is bool else [*_words(annotation)]


def _words(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    elif get_origin(annotation) in (Union, UnionType, Annotated):
        for part in get_args(annotation):
            yield from _words(part)


@dataclass(frozen=True)
class Source:
    """Where each key was written: a line of the file, or a `--set`."""

    path: Path
    lines: Mapping[KeyPath, int]
    overrides: Mapping[KeyPath, str]

    def at_line(self, line: int | None, what: str) -> tuple[int, str]:
        """A problem on a line of the file, after its sort key."""
        return line or 0, f"{self.path}:{line}: {what}" if line else f"{self.path}: {what}"

    def at_key(self, key: KeyPath, what: str) -> tuple[int, str]:
        """A problem with a key, wherever it was written."""
        if key in self.overrides:
            return at_override(self.overrides[key], what)
        written = next((key[:size] for size in range(len(key), 0, -1) if key[:size] in self.lines), None)
        line = self.lines[written] if written else None
        return self.at_line(line, f"{printable('.'.join(key))}: {what}")

    def has(self, key: KeyPath) -> bool:
        """Whether the key was written at all."""
        return key in self.lines or key in self.overrides


def at_override(text: str, what: str) -> tuple[int, str]:
    """A problem with a `--set`, after its sort key: they come last."""
    return 2**31, f"--set {printable(text)}: {what}"


def unknown_override(key: str) -> str:
    """What is wrong with a `--set` whose key is none."""
    path = tuple(key.split("."))
    if path in SECTIONS:
        return f"{key} is a section; set one of its keys, such as {key}.{SECTIONS[path][0]}"
    return "unknown key" + _suggestion(path, inside=False)


def problems(error: ValidationError, source: Source) -> list[tuple[int, str]]:
    """One problem a key, with what sorts it, in plain words."""
    found: dict[KeyPath, tuple[int, str]] = {}
    for detail in error.errors(include_url=False):
        loc = tuple(str(part) for part in detail["loc"])
        if detail["type"] == CONTRADICTION:
            for keys, what in detail["ctx"]["found"].items():
                paths = [(*loc, name) for name in keys]
                # The culprit may be a default; then the blame goes to the key that someone wrote.
                blamed = next((path for path in paths if source.has(path)), paths[0])
                text = what if blamed == paths[0] else f"{'.'.join(paths[0])} {what}"
                found[paths[0]] = source.at_key(blamed, text)
        elif detail["type"] == "extra_forbidden":
            found[loc] = source.at_key(loc, "unknown key" + _suggestion(loc, inside=True))
        else:
            # A union's error has a loc for each of its members: one message a field says it all.
            key = next(loc[:size] for size in range(len(loc), -1, -1) if loc[:size] in FIELDS)
            found.setdefault(key, source.at_key(key, _wrong(key, dict(detail))))
    return list(found.values())


def _wrong(key: KeyPath, detail: Mapping[str, Any]) -> str:
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    value, wanted, hint = detail["input"], FIELDS[key].description, ""
    if key in SECTIONS:
        return f"must be a section with the keys {listed(SECTIONS[key])}, not {shown(value)}"
    if not wanted:
        names = get_args(FIELDS[key].annotation)
        wanted, hint = f"one of {', '.join(names)}", did_you_mean(value, names)
    if detail["type"] == "missing":
        return f"is required: {wanted}"
    if detail["type"] == "less_than_equal":
        wanted = f"at most {detail['ctx']['le']:,}"
    return f"must be {wanted}, not {shown(value)}{hint}"


def _suggestion(key: KeyPath, *, inside: bool) -> str:
    """The end of a message about an unknown key: the likeliest keys, or those of its section.

    `inside` a file, a key of the same section is named without it.
    """
    section, found = key[:-1], _likely(key)
    if not found:
        return f"; the keys here are {listed(SECTIONS.get(section, SECTIONS[()]))}"
    names = [path[-1] if inside and path[:-1] == section else ".".join(path) for path in found]
    return f"; did you mean {listed([repr(name) for name in names])}?"


def _likely(key: KeyPath) -> list[KeyPath]:
    """What the unknown `key` was probably meant to be: by its last part, within its section before other sections."""
    section, last = key[:-1], key[-1]
    if section not in SECTIONS:
        if section in FIELDS:
            return [section]
        sections = [above[0] for above in SECTIONS if above]
        section = (meant,) if (meant := nearest(section[0], sections)) else ()
        if (*section, last) in FIELDS:
            return [(*section, last)]
    name = tuple(SYNONYMS.get(last.casefold().replace("-", "_"), last).split("."))
    same = [path for path in _LEAVES if path[-len(name) :] == name or path[:-1] == name]
    if same:
        return [path for path in same if path[:-1] == section] or same
    if near := nearest(last, SECTIONS[section]):
        return [(*section, near)]
    if not section and (near := nearest(".".join(key), KEYS)):
        return [tuple(near.split("."))]
    near = nearest(last, [path[-1] for path in _LEAVES])
    return [path for path in _LEAVES if path[-1] == near]
