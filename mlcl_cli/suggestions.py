"""Values, lists and suggestions in the words of an error message."""

import difflib
from collections.abc import Collection

MAX_SHOWN = 60


def shown(value: object) -> str:
    """A value as a message names it: short, on one line, printable."""
    if value is None:
        return "an empty value"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a section"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def nearest(wrong: str, names: Collection[str], cutoff: float = 0.6) -> str | None:
    """The name that `wrong` was probably meant to be, ignoring case."""
    by_fold = {name.casefold(): name for name in names}
    # difflib is quadratic in the length, and no name is that long.
    matches = difflib.get_close_matches(wrong[:100].casefold(), by_fold, n=1, cutoff=cutoff)
    return by_fold[matches[0]] if matches else None


def did_you_mean(wrong: object, names: Collection[str]) -> str:
    """The end of a message that suggests the nearest name, or nothing."""
    name = nearest(wrong, names) if isinstance(wrong, str) else None
    return f"; did you mean '{name}'?" if name not in (None, wrong) else ""
