"""YAML without surprises: 1.2 core scalars (`no` is text, `2e-6` a number), no repeated keys, no bombs, lines kept.

It reads the events of PyYAML's parser, not its nodes: events need no recursion, so every bound here is met before
anything grows.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML built without libyaml
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

MAX_CHARACTERS = 256 * 1024
MAX_DEPTH = 20
MAX_VALUES = 10_000
MAX_DIGITS = 300

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
KeyPath: TypeAlias = tuple[str, ...]

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NO_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}
_TEXT_TAGS = ("!", "tag:yaml.org,2002:str")


class YamlError(ValueError):
    """What is wrong, and on which line where that is known."""

    def __init__(self, what: str, line: int | None = None) -> None:
        super().__init__(what)
        self.what, self.line = what, line


@dataclass(frozen=True)
class Repeat:
    """A key that is given twice."""

    key: KeyPath
    line: int
    first: int


@dataclass(frozen=True)
class Document:
    """A document's value, the 1-based line of each key, and the keys that are given twice."""

    value: Value
    lines: dict[KeyPath, int] = field(default_factory=dict)
    repeats: list[Repeat] = field(default_factory=list)


def parse(text: str) -> Document:
    """Reads one document; an empty one is None. The last of repeated keys counts, and all are listed.

    Raises YamlError where `text` is no YAML, too large or deep, or uses tags, merge keys or several documents.
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlError(f"is too large: over {MAX_CHARACTERS // 1024} KiB")
    if odd := _NO_TEXT.search(text):
        raise YamlError(f"has a character that is no text, {odd[0]!r}", text.count("\n", 0, odd.start()) + 1)
    return _Builder(text).document()


class _Builder:
    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_Loader)
        self._lines: dict[KeyPath, int] = {}
        self._repeats: list[Repeat] = []
        self._anchors: dict[str, tuple[Value, int] | None] = {}
        self._values = 0

    def document(self) -> Document:
        """The one document of the stream. Raises YamlError."""
        self._next()  # stream start
        if isinstance(self._next(), yaml.StreamEndEvent):
            return Document(None)
        value = self._node(self._next(), (), 0)
        self._next()  # document end
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise YamlError("starts a second document; there may be only one", _line(event))
        return Document(value, self._lines, self._repeats)

    def _next(self) -> yaml.Event:
        try:
            return next(self._events)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = error.problem or error.context or ""
            # libyaml has a bound of its own, which it meets before ours.
            what = f"is nested more than {MAX_DEPTH} deep" if "nesting depth" in problem else f"is not YAML: {problem}"
            raise YamlError(what, mark.line + 1 if mark else None) from error
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML's own scanner leaks chr()'s and int()'s
            raise YamlError(f"is not YAML: {error}") from error

    def _node(self, event: yaml.Event, key: KeyPath, depth: int) -> Value:
        line = _line(event)
        if depth > MAX_DEPTH:
            raise YamlError(f"is nested more than {MAX_DEPTH} deep", line)
        before = self._values
        self._count(1, line)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), line)
        assert isinstance(event, yaml.NodeEvent)
        if event.anchor:
            self._anchors[event.anchor] = None
        value = self._value(event, key, depth)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._values - before)
        return value

    def _value(self, event: yaml.NodeEvent, key: KeyPath, depth: int) -> Value:
        tag = getattr(event, "tag", None)
        if isinstance(event, yaml.ScalarEvent) and (tag is None or tag in _TEXT_TAGS):
            return _scalar(event.value, _line(event)) if tag is None and event.implicit[0] else str(event.value)
        if tag is not None:
            raise YamlError(f"has a YAML tag ({tag}); write the plain value", _line(event))
        return self._mapping(key, depth) if isinstance(event, yaml.MappingStartEvent) else self._sequence(key, depth)

    def _alias(self, name: str, line: int) -> Value:
        if name not in self._anchors:
            raise YamlError(f"refers to *{name}, which is not defined above", line)
        known = self._anchors[name]
        if known is None:
            raise YamlError(f"refers to *{name} within itself", line)
        self._count(known[1], line)
        return known[0]

    def _sequence(self, key: KeyPath, depth: int) -> list[Value]:
        items: list[Value] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._node(event, (*key, str(len(items))), depth + 1))
        return items

    def _mapping(self, key: KeyPath, depth: int) -> dict[str, Value]:
        items: dict[str, Value] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise YamlError("has a key that is no plain text", line)
            self._node(event, key, depth + 1)
            if event.value == "<<" and event.implicit[0]:
                raise YamlError("has a merge key (<<); write its keys out", line)
            path = (*key, event.value)
            if event.value in items:
                self._repeats.append(Repeat(path, line, self._lines[path]))
            self._lines[path] = line
            items[event.value] = self._node(self._next(), path, depth + 1)
        return items

    def _count(self, values: int, line: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise YamlError(f"is too large: over {MAX_VALUES:,} values with its aliases written out", line)


def _scalar(text: str, line: int) -> Value:
    if text in _WORDS:
        return _WORDS[text]
    is_int, is_float = _INT.fullmatch(text), _FLOAT.fullmatch(text)
    if (is_int or is_float) and len(text) > MAX_DIGITS:
        raise YamlError(f"has a number of more than {MAX_DIGITS} digits", line)
    if is_int:
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)
    if _SPECIAL_FLOAT.fullmatch(text):
        return float(text.replace(".", ""))
    return float(text) if is_float else text


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return int(event.start_mark.line) + 1
