"""pydantic's errors in plain words, each at its line of the profile or its option."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mlcl_cli.config.schema import CONTRADICTION, Profile
from mlcl_cli.config.strict_yaml import KeyPath
from mlcl_cli.config.suggestions import SYNONYMS, did_you_mean, nearest, shown


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
    """The words that `key` takes; empty if it takes none, or a list of them."""
    annotation = FIELDS[tuple(key.split("."))].annotation
    return [] if get_origin(annotation) is tuple else [*_words(annotation)]


def _words(annotation: object) -> Iterator[str]:
    if annotation is bool:
        yield from ("true", "false")
    for part in get_args(annotation):
        if get_origin(annotation) is Literal:
            yield part
        else:
            yield from _words(part)


def _expected(annotation: object, constraints: Sequence[object] = ()) -> str:
    """What a field of this type takes."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _expected(parts[0], parts[1:])
    if origin in (Union, UnionType):
        return " or ".join(_expected(part) for part in parts)
    if origin is tuple:
        names = [*_words(annotation)]
        return f"a list of {', '.join(names)}, such as [{names[-1]}]"
    if origin is Literal:
        return f"one of {', '.join(parts)}" if len(parts) > 1 else str(parts[0])
    if annotation in (bool, Path):
        return "true or false" if annotation is bool else "a path"
    article, noun = ("an", "integer") if annotation is int else ("a", "number")
    least = next((limit.ge for limit in constraints if hasattr(limit, "ge")), None)
    return f"a positive {noun}" if least is None else f"{article} {noun} of at least {least}"


@dataclass(frozen=True)
class Problem:
    """A message, and the line of the profile that it is about: 0 if it is about none."""

    text: str
    line: int = 0


def problem_in_file(path: Path, line: int | None, what: str) -> Problem:
    """A problem on a line of the profile, where it has one."""
    return Problem(f"{path}:{line}: {what}", line) if line else Problem(f"{path}: {what}")


def problem_in_override(option: str, what: str) -> Problem:
    """A problem with an option; they come after those of the file."""
    return Problem(f"{option}: {what}", line=2**31)


@dataclass(frozen=True)
class Source:
    """Where each key was written: a line of the file, or an option."""

    path: Path
    lines: Mapping[KeyPath, int]
    overrides: Mapping[KeyPath, str]

    def problem(self, key: KeyPath, what: str) -> Problem:
        """A problem with `key`, where it or else its section was written."""
        if key in self.overrides:
            return problem_in_override(self.overrides[key], what)
        above = (key[:size] for size in range(len(key), 0, -1))
        line = next((self.lines[written] for written in above if written in self.lines), None)
        return problem_in_file(self.path, line, f"{'.'.join(key)}: {what}")


def validation_problems(error: ValidationError, source: Source) -> list[Problem]:
    """One problem for each key."""
    by_key: dict[KeyPath, Problem] = {}
    for detail in error.errors(include_url=False):
        place = tuple(str(part) for part in detail["loc"])
        if detail["type"] == CONTRADICTION:
            for names, what in detail["ctx"]["found"].items():
                keys = [(*place, name) for name in names]
                # The first is to blame. If it is a default, the message belongs to a key that someone wrote.
                written = next((key for key in keys if key in source.lines or key in source.overrides), keys[0])
                text = what if written == keys[0] else f"{'.'.join(keys[0])} {what}"
                by_key[keys[0]] = source.problem(written, text)
        elif detail["type"] == "extra_forbidden":
            by_key[place] = source.problem(place, unknown_key(place))
        else:
            # A union has an error for each of its members: one message for the field says it all.
            key = next(place[:size] for size in range(len(place), -1, -1) if place[:size] in FIELDS)
            by_key.setdefault(key, source.problem(key, _wrong_value(key, detail)))
    return list(by_key.values())


def _wrong_value(key: KeyPath, detail: ErrorDetails) -> str:
    field, value = FIELDS[key], detail["input"]
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if detail["type"] == "less_than_equal":
        return f"must be at most {detail['ctx']['le']:,}, not {shown(value)}"
    if key in SECTIONS:
        return f"must be a section with the keys {', '.join(SECTIONS[key])}, not {shown(value)}"
    expected = _expected(field.annotation, field.metadata)
    if detail["type"] == "missing":
        return f"is required: {expected}"
    hint = did_you_mean(value, [*_words(field.annotation)])
    if value and not hint and isinstance(value, str) and Path in get_args(field.annotation):
        hint = f". A path needs a folder or an extension: ./{value}"
    return f"must be {expected}, not {shown(value)}{hint}"


def unknown_key(key: KeyPath) -> str:
    """What is wrong with a key that does not exist: the likeliest keys, or those of its section."""
    if key in SECTIONS:
        return f"{'.'.join(key)} is a section; set one of its keys, such as {'.'.join(key)}.{SECTIONS[key][0]}"
    if matches := _likely(key):
        return f"unknown key; did you mean {' or '.join(repr('.'.join(match)) for match in matches)}?"
    return f"unknown key; valid keys here are {', '.join(SECTIONS.get(key[:-1], SECTIONS[()]))}"


def _likely(key: KeyPath) -> list[KeyPath]:
    section, last = key[:-1], key[-1]
    if section in FIELDS and section not in SECTIONS:
        return [section]
    names = {".".join(known): known for known in FIELDS}
    if near := nearest(".".join(key), names, cutoff=0.9):
        return [names[near]]
    meant = tuple(SYNONYMS.get(last.casefold().replace("-", "_"), last).split("."))
    matches = [leaf for leaf in _LEAVES if leaf[-len(meant) :] == meant or leaf[:-1] == meant]
    if not matches and (near := nearest(last, SECTIONS.get(section, ()))):
        return [(*section, near)]
    if not matches and (near := nearest(last, [leaf[-1] for leaf in _LEAVES])):
        matches = [leaf for leaf in _LEAVES if leaf[-1] == near]
    return [leaf for leaf in matches if leaf[:-1] == section] or matches
