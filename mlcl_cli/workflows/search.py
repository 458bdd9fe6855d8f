"""`mlcl search`: a query of one's own catalog, and what it found."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlcl_cli import __version__
from mlcl_cli.atomic_files import require_replaceable, write_file
from mlcl_cli.errors import UsageError
from mlcl_cli.html_report.contact_sheet import ContactSheet, Entry
from mlcl_cli.html_report.naming import LEVELS
from mlcl_cli.html_report.pictures import LARGE
from mlcl_cli.images.decode import decode_image, open_image
from mlcl_cli.images.thumbnails import Color, Thumbnail, half_blocks, thumbnail
from mlcl_cli.workflows.hits import as_json, plain
from mlcl_cli.workflows.retriever import Hit, Query
from mlcl_cli.workflows.search_engine import SearchEngine

SIGNATURE = '<meta name="generator" content="mlcl'
PARTS = {"image": "image only", "text": "text only", **{key: f"{name} level" for key, name in LEVELS.items()}}


@dataclass(frozen=True)
class SearchSettings:
    """How queries are searched: see `Retriever.search`."""

    where: str | None = None
    k: int = 10
    group_by: str | None = None
    explain: bool = False


@dataclass(frozen=True)
class SearchResult:
    """A query and its hits. `item` is the catalog's row that was the reference, if one was."""

    query: Query
    settings: SearchSettings
    hits: Sequence[Hit]
    catalog: str
    model: Mapping[str, object]
    milliseconds: float
    item: Hit | None = field(default=None, repr=False)

    @property
    def reference(self) -> str:
        """The reference in words; empty without one."""
        return self.query.item or (os.fspath(self.query.image) if isinstance(self.query.image, str | Path) else "")

    @property
    def title(self) -> str:
        """The query in words."""
        words = " + ".join(part for part in (self.reference, self.query.text and f'"{self.query.text}"') if part)
        return words + (f", where {self.settings.where}" if self.settings.where else "")

    @property
    def parts(self) -> dict[str, str]:
        """The keys of the hits' levels, and what people call them."""
        found = self.hits[0].levels if self.hits else None
        return {key: PARTS[key] for key in found or ()}

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints."""
        return {
            "command": "search",
            "hits": [as_json(hit) for hit in self.hits],
            "took_ms": round(self.milliseconds, 3),
            "model": dict(self.model),
            "catalog": self.catalog,
        }


def run_search(engine: SearchEngine, query: Query, settings: SearchSettings) -> SearchResult:
    """The hits of a query. Raises as `Retriever.search` does."""
    began = time.monotonic()
    where = settings.where
    (hits,) = engine.search_many([query], where, k=settings.k, group_by=settings.group_by, explain=settings.explain)
    took = (time.monotonic() - began) * 1000
    item = None if query.item is None else engine.item(query.item)
    return SearchResult(query, settings, hits, engine.context.profile.catalog.name, engine.about(), took, item)


def require_page(path: Path) -> None:
    """Raise UsageError unless `path` is a new HTML file, or one that mlcl wrote."""
    if path.suffix not in (".html", ".htm"):
        raise UsageError("must end in .html or .htm", where=path, remedy="Choose another --html")
    require_replaceable(path, SIGNATURE, "a page")


def write_sheet(result: SearchResult, path: Path) -> None:
    """Write the hits as a page that needs no other file. Pictures are large where the images are still there."""
    model, settings = result.model, result.settings
    weights = Path(str(model["checkpoint"])).parent.name if model["checkpoint"] else str(model["combining_function"])
    facts = {"filter": settings.where, "one hit for each": settings.group_by, "model": weights}
    entries = [
        Entry(
            hit.id,
            _picture(hit),
            hit.score,
            {name: shown_value(value) for name, value in hit.fields.items() if value is not None},
            {PARTS[key]: score for key, score in (hit.levels or {}).items()},
        )
        for hit in result.hits
    ]
    sheet = ContactSheet(
        version=__version__,
        text=result.query.text or "",
        reference=result.reference,
        picture=_reference_picture(result),
        facts={name: value for name, value in facts.items() if value} | {"catalog": result.catalog},
        entries=entries,
    )
    write_file(path, sheet.html().encode(errors="backslashreplace"))


def shown_value(value: object) -> str:
    """A field's value for people, true and false as filters take them; empty if there is none."""
    value = plain(value)
    if isinstance(value, list):
        return ", ".join(map(shown_value, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:.8g}" if isinstance(value, float) else str(value)


def terminal_picture(hit: Hit, width: int, lines: int) -> list[list[tuple[Color, Color]]]:
    """A hit's thumbnail as `half_blocks` gives it; nothing without one."""
    if not hit.thumbnail:
        return []
    try:
        return half_blocks(decode_image(hit.thumbnail), width, lines)
    except (OSError, ValueError):
        return []


def _picture(hit: Hit) -> Thumbnail | None:
    return _of_file(Path(hit.image)) or _of_jpeg(hit.thumbnail)


def _reference_picture(result: SearchResult) -> Thumbnail | None:
    if result.item is not None:
        return _picture(result.item)
    return _of_file(Path(result.reference)) if result.reference else None


def _of_file(path: Path) -> Thumbnail | None:
    try:
        return thumbnail(open_image(path), LARGE)
    except (OSError, ValueError):
        return None


def _of_jpeg(jpeg: bytes) -> Thumbnail | None:
    try:
        return Thumbnail(*decode_image(jpeg).size, jpeg) if jpeg else None
    except (OSError, ValueError):
        return None
