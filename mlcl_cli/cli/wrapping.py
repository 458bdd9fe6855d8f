"""A console whose lines break between words: paths stay whole, to be read and copied."""

import re
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_WORD = re.compile(r"\S+\s*|\s+")


class WordWrapped(Console):
    """Breaks what it prints between words on a terminal, and never in a pipe or a file."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's; a word that is wider than the terminal gets a line of its own."""
        if self.is_terminal:
            objects = tuple(self._wrapped(part) if isinstance(part, str) else part for part in objects)
        super().print(*objects, **options)

    def _wrapped(self, markup: str) -> Text:
        lines: list[Text] = []
        for line in Text.from_markup(markup, emoji=False).split("\n", allow_blank=True):
            parts = line.divide(_breaks(line.plain, self.width))
            for part in parts[:-1]:
                part.rstrip()
            lines += parts
        return Text("\n").join(lines)


def _breaks(line: str, width: int) -> list[int]:
    """Where to break `line`, in characters; widths are in cells."""
    breaks, column = [], 0
    for word in _WORD.finditer(line):
        if column and column + cell_len(word[0].rstrip()) > width:
            breaks.append(word.start())
            column = 0
        column += cell_len(word[0])
    return breaks
