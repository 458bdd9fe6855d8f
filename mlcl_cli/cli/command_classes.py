"""typer's commands and groups, with suggestions, and help without the types of flags and lists."""

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

from pydantic import ValidationError
from typer import BadParameter
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.suggestions import shown

if TYPE_CHECKING:
    from typer._click import Command as ClickCommand
    from typer._click import Context, Parameter

# What other tools call a command.
MEANT = {
    "benchmark": ("bench",),
    "combiner": ("train-combiner",),
    "convert": ("export",),
    "delete": ("rm",),
    "doctor": ("check",),
    "eval": ("evaluate",),
    "fine-tune": ("finetune",),
    "fit": ("finetune", "train-combiner"),
    "generate": ("make-triplets",),
    "info": ("show",),
    "list": ("runs",),
    "ls": ("runs",),
    "prepare": tuple(dataset.preparation.command for dataset in DATASETS.values() if dataset.preparation),
    "remove": ("rm",),
    "resume": ("finetune", "train-combiner"),
    "submit": tuple(dataset.submission.command for dataset in DATASETS.values() if dataset.submission),
    "test": ("evaluate",),
    "train": ("finetune", "train-combiner"),
    "triplets": ("make-triplets",),
    "tune": ("finetune",),
    "val": ("evaluate",),
    "validate": ("evaluate",),
}


def _without_odd_types(params: "list[Parameter]") -> "list[Parameter]":
    for param in params:
        if isinstance(param, TyperOption) and param.is_flag:
            param.metavar = ""
        elif isinstance(param, TyperArgument) and param.nargs == -1:
            param.display_type_rich = lambda ctx: ""  # type: ignore[method-assign] # noqa: ARG005
    return params


def _in_our_words(error: BadParameter) -> str:
    """The message, with what was expected and what was given where pydantic names only its types."""
    if isinstance(error.__cause__, ValidationError):
        detail = error.__cause__.errors(include_url=False)[0]
        expected = {
            "int_parsing": "an integer",
            "float_parsing": "a number",
            "greater_than_equal": f"at least {detail.get('ctx', {}).get('ge')}",
            "less_than_equal": f"at most {detail.get('ctx', {}).get('le')}",
        }.get(detail["type"])
        if expected is not None:
            return f"must be {expected}, not {shown(detail['input'])}"
    return error.message.removeprefix("Value error, ")


class Command(TyperCommand):
    """A command whose help shows no types of flags and lists."""

    def get_params(self, ctx: "Context") -> "list[Parameter]":
        """Its parameters, `--help` among them."""
        return _without_odd_types(super().get_params(ctx))

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        """Parse `args`; an invalid choice is a usage error that suggests a valid one."""
        try:
            return super().parse_args(ctx, args)
        except BadParameter as error:
            error.message = _in_our_words(error)
            if (match := re.fullmatch(r"'(.*)' is not one of (.*)\.", error.message)) and (
                likely := get_close_matches(match[1], re.findall(r"'([^']*)'", match[2]), n=1)
            ):
                error.message += f" Did you mean {likely[0]!r}?"
            raise


class Group(TyperGroup):
    """A group that suggests what an unknown command may have been meant to be."""

    def get_params(self, ctx: "Context") -> "list[Parameter]":
        """Its parameters, `--help` among them."""
        return _without_odd_types(super().get_params(ctx))

    def resolve_command(self, ctx: "Context", args: list[str]) -> "tuple[str | None, ClickCommand | None, list[str]]":
        """The command that `args` begin with; an unknown one is a usage error."""
        name = args[0]
        if name.startswith("-") or ctx.resilient_parsing or self.get_command(ctx, name) is not None:
            return super().resolve_command(ctx, args)
        known = self.list_commands(ctx)
        names = {command: command for command in known} | {ctx.info_name: ctx.command_path}
        likely = [names[word] for word in MEANT.get(name.lower(), ()) if word in names]
        likely = likely or get_close_matches(name, known)
        hint = f"Did you mean {' or '.join(map(repr, likely))}?" if likely else f"The commands are {', '.join(known)}."
        return ctx.fail(f"No such command {name!r}. {hint}")
