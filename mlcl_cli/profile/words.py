"""Values and suggestions in the words of an error message."""

import difflib
from collections.abc import Collection

SHOWN = 60


def shown(value: object) -> str:
    """A value as a message names it: short, on one line, printable."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a section"
    text = repr(list(value)) if isinstance(value, list | tuple) else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def printable(text: str) -> str:
    """`text` itself unless it would garble a terminal."""
    return text if text.isprintable() else repr(text)


def listed(names: Collection[str]) -> str:
    """The names in words: "a, b or c"."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def nearest(wrong: object, names: Collection[str], cutoff: float = 0.6) -> str | None:
    """The name that `wrong` was probably meant to be; case does not count."""
    by_fold = {name.casefold(): name for name in names}
    # difflib is quadratic in the length, and no name is that long.
    found = difflib.get_close_matches(str(wrong)[:100].casefold(), by_fold, n=1, cutoff=cutoff)
    return by_fold[found[0]] if found else None


def did_you_mean(wrong: object, names: Collection[str]) -> str:
    """The end of a message that suggests the nearest name, or nothing."""
    name = nearest(wrong, names) if isinstance(wrong, str) else None
    return f"; did you mean '{name}'?" if name else ""
