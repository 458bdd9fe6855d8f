"""YAML without surprises: 1.2 core scalars (`no` is text, `2e-6` a number), one document, line numbers kept.

Repeated keys are reported; tags and merge keys are refused. Values are built from the events of PyYAML's parser, which
needs no recursion, so every limit below is checked before anything grows.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

MAX_CHARACTERS = 256 * 1024
MAX_DEPTH = 20
MAX_VALUES = 10_000
MAX_DIGITS = 300

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
KeyPath: TypeAlias = tuple[str, ...]

_CORE_SCHEMA: tuple[tuple[re.Pattern[str], Callable[[str], Value]], ...] = (
    (re.compile(r"null|Null|NULL|~|"), lambda _: None),
    (re.compile(r"true|True|TRUE"), lambda _: True),
    (re.compile(r"false|False|FALSE"), lambda _: False),
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text, 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text, 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), lambda text: float(text.replace(".", ""))),
)


class YamlError(Exception):
    """What is wrong, and on which line where that is known."""

    def __init__(self, what: str, line: int | None = None) -> None:
        super().__init__(what)
        self.what, self.line = what, line


@dataclass
class Document:
    """A document's value, the 1-based line of each key, and an error for each key that is defined again."""

    value: Value = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    duplicates: list[YamlError] = field(default_factory=list)


def parse(text: str) -> Document:
    """Read one document; an empty one is None. The last definition of a duplicate key wins.

    Raises YamlError if `text` is not YAML, is too large or too deep, or has tags, merge keys or several documents.
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlError(f"is too large: over {MAX_CHARACTERS // 1024} KiB")
    try:
        return _Reader(text).document()
    except yaml.reader.ReaderError as error:
        character, line = text[error.position], text.count("\n", 0, error.position) + 1
        raise YamlError(f"has a character that is not allowed in YAML, {character!r}", line) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(f"is not YAML: {error.problem or error.context}", mark.line + 1 if mark else None) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML leaks those of chr() and int()
        raise YamlError(f"is not YAML: {error}") from error


class _Reader:
    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._document = Document()
        self._anchors: dict[str, tuple[Value, int]] = {}  # values, and how many they hold
        self._count = 0

    def document(self) -> Document:
        """The only document of the stream."""
        next(self._events)  # start of the stream
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return self._document
        self._document.value = self._value(next(self._events), ())
        next(self._events)  # end of the document
        if not isinstance(event := next(self._events), yaml.StreamEndEvent):
            raise YamlError("starts a second document; expected only one", _line(event))
        return self._document

    def _value(self, event: yaml.Event, path: KeyPath) -> Value:
        assert isinstance(event, yaml.NodeEvent)
        line, before = _line(event), self._count
        self._add(1, line)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise YamlError(f"refers to *{event.anchor}, which is not defined above or contains itself", line)
            value, size = self._anchors[event.anchor]
            self._add(size, line)
            return value
        if len(path) > MAX_DEPTH:
            raise YamlError(f"is nested more than {MAX_DEPTH} deep", line)
        tag: str | None = getattr(event, "tag", None)
        if isinstance(event, yaml.ScalarEvent) and tag in (None, "!", "tag:yaml.org,2002:str"):
            plain = tag is None and event.implicit[0]
            value = _scalar(event.value, line) if plain else str(event.value)
        elif tag is not None:
            raise YamlError(f"has a YAML tag ({tag}); write the plain value", line)
        else:
            value = self._mapping(path) if isinstance(event, yaml.MappingStartEvent) else self._sequence(path)
        if event.anchor:
            self._anchors[event.anchor] = value, self._count - before
        return value

    def _sequence(self, path: KeyPath) -> list[Value]:
        items: list[Value] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*path, str(len(items)))))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Value]:
        items: dict[str, Value] = {}
        lines = self._document.lines
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise YamlError("has a key that is not plain text", line)
            if event.value == "<<" and event.implicit[0]:
                raise YamlError("has a merge key (<<); write its keys out", line)
            self._value(event, path)
            key = (*path, event.value)
            if event.value in items:
                what = f"{'.'.join(key)}: duplicate key, first defined on line {lines[key]}"
                self._document.duplicates.append(YamlError(what, line))
            lines[key] = line
            items[event.value] = self._value(next(self._events), key)
        return items

    def _add(self, values: int, line: int) -> None:
        self._count += values
        if self._count > MAX_VALUES:
            raise YamlError(f"is too large: over {MAX_VALUES:,} values with its aliases expanded", line)


def _scalar(text: str, line: int) -> Value:
    convert = next((convert for pattern, convert in _CORE_SCHEMA if pattern.fullmatch(text)), str)
    if convert is not str and len(text) > MAX_DIGITS:
        raise YamlError(f"has a number of more than {MAX_DIGITS} digits", line)
    return convert(text)


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return int(event.start_mark.line) + 1
