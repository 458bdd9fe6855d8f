"""Captions of changes, from jinja2 templates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

from jinja2 import StrictUndefined, TemplateSyntaxError, meta
from jinja2 import Template as Compiled
from jinja2.sandbox import SandboxedEnvironment

from mlcl_cli.catalog.relative import Relative
from mlcl_cli.errors import DataError
from mlcl_cli.suggestions import did_you_mean, shown

DEFAULT_TEMPLATES = Path(__file__).with_name("captions.yaml")
DEFAULT = "default"  # the key of the templates for attributes without any
VARIABLES = ("new", "old", "attribute")
ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined)


@dataclass(frozen=True, eq=False)
class Template:
    """A caption's template for an attribute, as written at `place`."""

    attribute: str
    text: str
    place: str
    compiled: Compiled

    def render(self, new: str, old: str) -> str:
        """The caption, on one line. Raises DataError if the template fails on these values or gives nothing."""
        return _render(self, new, old)


@dataclass(frozen=True)
class ValueChange:
    """An attribute, by its number, and its values before and after; none for a relative change, numbered after them."""

    attribute: int
    old: str = ""
    new: str = ""


@dataclass(frozen=True)
class Captions:
    """The templates of each attribute and of each relative change, and what joins the captions of two changes."""

    templates: Sequence[Sequence[Template]]
    join: str
    relative: Sequence[Relative] = ()

    def caption(self, changes: Sequence[ValueChange], draw: Random) -> str:
        """A caption for `changes`, worded at random. Raises DataError if a template cannot be rendered."""
        parts = []
        for change in changes:
            templates = self.templates[change.attribute]
            template = templates[draw.randrange(len(templates))]
            parts.append(template.render(change.new, change.old))
        return self.join.join(parts)

    def require_clear(self, values: Sequence[Sequence[str]]) -> None:
        """Raise DataError if a caption would fit two changes: to two values, of two attributes, or a relative one.

        `values` are the attributes' values; every one is tried as the new value, with one other as the old value.
        """
        shared = {value: sum(value in column for column in map(set, values)) for column in values for value in column}
        meanings: dict[str, str] = {}
        for templates, column in zip(self.templates, values, strict=False):
            first, second = sorted(column, key=lambda value: (-shared[value], value))[:2]  # the same for shared values
            for template in templates:
                for new in column:
                    caption = template.render(new, second if new == first else first)
                    _require_one_meaning(template, caption, f"{template.attribute} {shown(new)}", meanings)
        for template in (template for templates in self.templates[len(values) :] for template in templates):
            _require_one_meaning(template, template.render("", ""), shown(template.attribute), meanings)


def _require_one_meaning(template: Template, caption: str, meaning: str, meanings: dict[str, str]) -> None:
    if (other := meanings.setdefault(caption, meaning)) != meaning:
        what = f"{shown(template.text)} is ambiguous: {shown(caption)} could mean {other} or {meaning}"
        remedy = "Write {{ new }} as it is, and name the {{ attribute }}, in templates of your own"
        raise DataError(what, where=template.place, remedy=remedy)


def compile_captions(
    attributes: Sequence[str],
    templates: Mapping[str, Sequence[str]],
    join: str,
    places: Mapping[str, str],
    relative: Sequence[Relative] = (),
) -> Captions:
    """Compile the templates of each attribute, or those under "default"; names are compared without case.

    `places` says where each key of `templates` was written. Raises DataError for an attribute without templates, and
    for a template that is not valid, uses an unknown variable, or does not name the new value.
    """
    keys = {key.casefold(): key for key in templates}
    compiled = []
    for attribute in attributes:
        key = keys.get(attribute.casefold(), keys.get(DEFAULT))
        if key is None:
            what = f"has no templates for attribute {attribute!r}{did_you_mean(attribute, templates)}"
            raise DataError(what, where=places[""], remedy=f"Add templates for it, or under {DEFAULT!r}")
        compiled.append([_compile(attribute, text, f"{places[key]}, {key}") for text in templates[key]])
    compiled += [
        [_compile(change.label, text, f"{change.place}, {change.label}", is_relative=True) for text in change.captions]
        for change in relative
    ]
    return Captions(compiled, join, relative)


def _compile(attribute: str, text: str, place: str, *, is_relative: bool = False) -> Template:
    remedy = f"Use the variables {', '.join(VARIABLES)}"
    try:
        used = meta.find_undeclared_variables(ENVIRONMENT.parse(text))
        compiled = ENVIRONMENT.from_string(text)
    except TemplateSyntaxError as error:
        what = f"{shown(text)} is not a valid template ({error.message})"
        raise DataError(what, where=place, remedy="Write variables as {{ new }}") from error
    if is_relative and used:
        what = f"{shown(text)} uses a variable, but the caption of a relative change names no value"
        raise DataError(what, where=place, remedy="Write it without variables")
    if unknown := sorted(used - {*VARIABLES}):
        what = f"{shown(text)} uses the unknown variable {unknown[0]!r}{did_you_mean(unknown[0], VARIABLES)}"
        raise DataError(what, where=place, remedy=remedy)
    if "new" not in used and not is_relative:
        what = f"{shown(text)} does not name the new value, so it would fit several changes"
        raise DataError(what, where=place, remedy="Use {{ new }} in it")
    return Template(attribute, text, place, compiled)


@lru_cache(maxsize=100_000)
def _render(template: Template, new: str, old: str) -> str:
    words = template.attribute.replace("_", " ")
    try:
        caption = " ".join(template.compiled.render(new=new, old=old, attribute=words).split())
    except Exception as error:  # a template can call anything on its values
        what = f"{shown(template.text)} fails for new={shown(new)}, old={shown(old)} ({error})"
        raise DataError(what, where=template.place, remedy="Correct the template") from error
    if not caption:
        what = f"{shown(template.text)} gives an empty caption for new={shown(new)}, old={shown(old)}"
        raise DataError(what, where=template.place, remedy="Correct the template")
    return caption
