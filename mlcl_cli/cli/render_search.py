"""What `mlcl search` prints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlcl_cli.cli.render import new_console, safe, say, show_table
from mlcl_cli.cli.render_runs import column_widths
from mlcl_cli.formatting import counted, duration

if TYPE_CHECKING:  # they import torch
    from mlcl_cli.workflows.retriever import Hit
    from mlcl_cli.workflows.search import SearchResult

PICTURE = 12, 5  # columns and lines
LONGEST = 40  # characters of a value


def show_search(result: "SearchResult", page: Path | None = None) -> None:
    """Print the hits with as many of their fields as there is room for, and with pictures where colors are exact."""
    from mlcl_cli.workflows.search import shown_value

    if not result.hits:
        say("Nothing in the catalog matches")
    console = new_console()
    pictured = console.is_terminal and console.color_system == "truecolor" and not console.no_color
    names = list(result.hits[0].fields) if result.hits else []
    values = [{name: _short(shown_value(hit.fields[name])) for name in names} for hit in result.hits]
    scores = [[f"{score:.3f}" for score in (hit.score, *(hit.levels or {}).values())] for hit in result.hits]
    heads = [[f"{number}", safe(hit.id)] for number, hit in enumerate(result.hits, 1)]
    right = ["score", *result.parts.values()]
    used = sum(column_widths([["", "id", *right], *([*head, *own] for head, own in zip(heads, scores, strict=True))]))
    room = console.width - used - (PICTURE[0] + 2 if pictured else 0)
    shown = _fitting(values, names, room)
    rows = []
    for hit, head, own, fields in zip(result.hits, heads, scores, values, strict=True):
        picture = [_picture(hit)] if pictured else []
        rows.append([*picture, *head, *(fields[name] for name in shown), *own])
    if rows:
        left = [*([""] if pictured else []), "", "id", *map(safe, shown)]
        show_table(rows, left=left, right=right, title=result.title, whole=room >= 0)
    if len(shown) < len(names):
        say(f"A wider terminal, --html or --json shows all {counted(len(names), 'field')}")
    if page is not None:
        say(f"Open it in a browser: {page}")
    say(f"Took {duration(result.milliseconds / 1000)}")


def _short(text: str) -> str:
    return safe(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")


def _fitting(values: Sequence[Mapping[str, str]], names: Sequence[str], room: int) -> list[str]:
    """The fields that fit into `room` columns side by side, from the first on."""
    shown = []
    for name in names:
        (width,) = column_widths([[safe(name)], *([row[name]] for row in values)])
        room -= width
        if room < 0:
            break
        shown.append(name)
    return shown


def _picture(hit: "Hit") -> str:
    """A thumbnail as markup: half blocks, each of two colors."""
    from mlcl_cli.workflows.search import terminal_picture

    return "\n".join(
        "".join(f"[{_color(above)} on {_color(below)}]▀[/]" for above, below in line)
        for line in terminal_picture(hit, *PICTURE)
    )


def _color(color: tuple[int, int, int]) -> str:
    return "rgb({},{},{})".format(*color)
