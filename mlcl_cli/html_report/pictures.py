"""The pictures of a page: each is embedded once, as large as its use asks for, and as many as the size limit allows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from mlcl_cli.images.thumbnails import Thumbnail

MAX_BYTES = 14_000_000  # of a page
LARGE, MEDIUM, SMALL = 256, 160, 112  # the longer side in pixels
MANY = 800  # pictures outside of the strips that are small from here on
SMALLEST = 1_000  # bytes of a picture at least: more than fit are not read

# Thumbnails of named files whose longer side has a given length, in order; None for one that cannot be read.
Embed = Callable[[Sequence[tuple[str, Path]], int], Iterator[Thumbnail | None]]


@dataclass(frozen=True)
class Pictures:
    """Files and the numbers of their pictures. What the page names is numbered first, the queries to search last."""

    embed: Embed
    numbers: dict[Path, int] = field(default_factory=dict)
    _large: set[Path] = field(default_factory=set)

    def number(self, path: Path, *, large: bool = False) -> int:
        """The number of a picture that the page names."""
        if large:
            self._large.add(path)
        return self.numbers.setdefault(path, len(self.numbers))

    def named(self, room: int) -> Iterator[Markup]:
        """The symbols of all pictures numbered so far, the large ones first, in at most `room` bytes.

        The symbol of one that cannot be read, or for which no room is left, is empty.
        """
        large, rest = ([path for path in self.numbers if (path in self._large) is which] for which in (True, False))
        thumbnails = [(large, LARGE), (rest, MEDIUM if len(rest) < MANY else SMALL)]
        for paths, side in thumbnails:
            for path, thumbnail in self._thumbnails(paths, side):
                symbol = picture_symbol(self.numbers[path], thumbnail if room > 0 else None)
                room -= len(symbol)
                yield symbol

    def further(self, wanted: Iterable[Path], room: int) -> Iterator[Markup]:
        """The symbols of other pictures in the order `wanted`, in at most `room` bytes; only these get numbers."""
        missing = list(dict.fromkeys(path for path in wanted if path not in self.numbers))
        for path, thumbnail in self._thumbnails(missing[: max(0, room) // SMALLEST], SMALL):
            symbol = picture_symbol(len(self.numbers), thumbnail)
            room -= len(symbol)
            if room < 0:
                return
            self.number(path)
            yield symbol

    def _thumbnails(self, paths: Sequence[Path], side: int) -> Iterator[tuple[Path, Thumbnail | None]]:
        return zip(paths, self.embed([(path.name, path) for path in paths], side), strict=True)


def picture_symbol(number: int, thumbnail: Thumbnail | None) -> Markup:
    """A picture as an SVG symbol, empty without a thumbnail: `<use href="#pNUMBER"/>` shows it."""
    if thumbnail is None:
        return Markup('<symbol id="p{}"></symbol>\n').format(number)
    return Markup(
        '<symbol id="p{0}" viewBox="0 0 {1.width} {1.height}"><image href="{1.uri}" width="{1.width}" '
        'height="{1.height}"/></symbol>\n'
    ).format(number, thumbnail)
