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


class LineError(Exception):
    """What is wrong, and on which line where that is known."""

    def __init__(self, what: str, line: int | None = None) -> None:
        super().__init__(what)
        self.what, self.line = what, line


@dataclass
class Document:
    """A document's value, the 1-based line of each key, and an error for each key that is defined again."""

    value: Value = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    duplicates: list[LineError] = field(default_factory=list)


def parse(text: str) -> Document:
    """Read one document; an empty one is None. The last definition of a duplicate key wins.

    Raises LineError if `text` is not YAML, is too large or too deep, or has tags, merge keys or several documents.
    """
    if len(text) > MAX_CHARACTERS:
        raise LineError(f"is too large: over {MAX_CHARACTERS // 1024} KiB")
    try:
        reader = _Reader(yaml.parse(text, Loader=yaml.SafeLoader))
        for event in reader.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if reader.count:
                    raise LineError("starts a second document; expected only one", _line(event))
                reader.document.value = reader.read(next(reader.events), ())
        return reader.document
    except yaml.reader.ReaderError as error:
        character, line = text[error.position], text.count("\n", 0, error.position) + 1
        raise LineError(f"has a character that is not allowed in YAML, {character!r}", line) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise LineError(f"is not YAML: {error.problem or error.context}", mark.line + 1 if mark else None) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML leaks those of chr() and int()
        raise LineError(f"is not YAML: {error}") from error


@dataclass
class _Reader:
    events: Iterator[yaml.Event]
    document: Document = field(default_factory=Document)
    count: int = 0  # of values, with aliases expanded
    anchors: dict[str, tuple[Value, int]] = field(default_factory=dict)  # values, and how many they hold

    def read(self, event: yaml.Event, path: KeyPath) -> Value:
        """The value that begins with `event`, at `path`."""
        assert isinstance(event, yaml.NodeEvent)
        line, before = _line(event), self.count
        self.count += 1
        value: Value
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise LineError(f"refers to *{event.anchor}, which is not defined above or contains itself", line)
            value, size = self.anchors[event.anchor]
            self.count += size
        if self.count > MAX_VALUES:
            raise LineError(f"is too large: over {MAX_VALUES:,} values with its aliases expanded", line)
        if isinstance(event, yaml.AliasEvent):
            return value
        if len(path) > MAX_DEPTH:
            raise LineError(f"is nested more than {MAX_DEPTH} deep", line)
        tag: str | None = getattr(event, "tag", None)
        if isinstance(event, yaml.ScalarEvent) and tag in (None, "!", "tag:yaml.org,2002:str"):
            plain = tag is None and event.implicit[0]
            value = _scalar(event.value, line) if plain else str(event.value)
        elif tag is not None:
            raise LineError(f"has a YAML tag ({tag}); write the plain value", line)
        else:
            value = self._mapping(path) if isinstance(event, yaml.MappingStartEvent) else self._sequence(path)
        if event.anchor:
            self.anchors[event.anchor] = value, self.count - before
        return value

    def _sequence(self, path: KeyPath) -> list[Value]:
        items: list[Value] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.read(event, (*path, str(len(items)))))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Value]:
        items: dict[str, Value] = {}
        lines = self.document.lines
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise LineError("has a key that is not plain text", line)
            if event.value == "<<" and event.implicit[0]:
                raise LineError("has a merge key (<<); write its keys out", line)
            self.read(event, path)
            key = (*path, event.value)
            if event.value in items:
                what = f"{'.'.join(key)}: duplicate key, first defined on line {lines[key]}"
                self.document.duplicates.append(LineError(what, line))
            lines[key] = line
            items[event.value] = self.read(next(self.events), key)
        return items


def _scalar(text: str, line: int) -> Value:
    convert = next((convert for pattern, convert in _CORE_SCHEMA if pattern.fullmatch(text)), str)
    if convert is not str and len(text) > MAX_DIGITS:
        raise LineError(f"has a number of more than {MAX_DIGITS} digits", line)
    return convert(text)


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return int(event.start_mark.line) + 1
