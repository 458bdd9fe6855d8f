"""What a search found on one page: the query, and the images with their scores and fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mlcl_cli.html_report.pictures import picture_symbol
from mlcl_cli.images.thumbnails import Thumbnail


@dataclass(frozen=True)
class Entry:
    """An image on the sheet; `levels` are the scores of each part of the query, in words."""

    name: str
    picture: Thumbnail | None
    score: float
    fields: Mapping[str, str]
    levels: Mapping[str, float]


@dataclass(frozen=True)
class ContactSheet:
    """A query and what it found. `reference` and `text` are what there is of them, `facts` how it was searched."""

    version: str
    text: str
    reference: str
    picture: Thumbnail | None
    facts: Mapping[str, str]
    entries: Sequence[Entry]

    @property
    def title(self) -> str:
        """What was looked for."""
        return f"{self.reference}: {self.text}" if self.text and self.reference else self.text or self.reference

    def html(self) -> str:
        """The whole page, one file that needs nothing else."""
        folder = files("mlcl_cli.html_report")
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        body = environment.from_string((folder / "sheet.html.j2").read_text("utf-8")).render(page=self)
        pictures = [self.picture, *(entry.picture for entry in self.entries)]
        return environment.from_string((folder / "frame.html.j2").read_text("utf-8")).render(
            page=self,
            body=Markup(body),
            symbols=[picture_symbol(number, picture) for number, picture in enumerate(pictures)],
            queries=[],
            style=Markup((folder / "style.css").read_text("utf-8")),
            script=Markup((folder / "script.js").read_text("utf-8")),
        )
