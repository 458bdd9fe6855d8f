"""The kinds of change that a modifier asks for, guessed from its words, in the same way for every data set."""

import re
from collections.abc import Mapping
from importlib.resources import files

import yaml

OTHER = "other"
WORDS: Mapping[str, str] = yaml.safe_load((files(__package__) / "change_kinds.yaml").read_text("utf-8"))
_PATTERNS = {
    kind: re.compile(rf"\b(?:{'|'.join(words.split())})\b".replace("_", r"\s"), re.IGNORECASE)
    for kind, words in WORDS.items()
}


def kinds_of(caption: str) -> tuple[str, ...]:
    """The kinds of change that `caption` names, in a fixed order; OTHER alone where none is recognized."""
    return tuple(kind for kind, pattern in _PATTERNS.items() if pattern.search(caption)) or (OTHER,)
