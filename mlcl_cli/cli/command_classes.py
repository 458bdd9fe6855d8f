"""typer's commands and groups, with suggestions, and help without the types of flags and lists."""

import re
from difflib import get_close_matches
from typing import Any

from typer import BadParameter
from typer.core import TyperCommand, TyperGroup

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
    "info": ("show",),
    "list": ("runs",),
    "ls": ("runs",),
    "prepare": ("prepare-shoes",),
    "remove": ("rm",),
    "resume": ("finetune", "train-combiner"),
    "submit": ("submit-cirr",),
    "test": ("evaluate",),
    "train": ("finetune", "train-combiner"),
    "tune": ("finetune",),
    "val": ("evaluate",),
    "validate": ("evaluate",),
}


def _without_odd_types(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
        elif param.param_type_name == "argument" and param.nargs == -1:
            param.display_type_rich = lambda ctx: ""  # noqa: ARG005
    return params


def _with_suggestion(message: str) -> str:
    """`message` with the choice that its invalid value is most like."""
    if found := re.fullmatch(r"'(.*)' is not one of (.*)\.", message):
        likely = get_close_matches(found[1], re.findall(r"'([^']*)'", found[2]), n=1)
        return f"{message} Did you mean {likely[0]!r}?" if likely else message
    return message


class Command(TyperCommand):
    """A command whose help shows no types of flags and lists."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its parameters, `--help` among them."""
        return _without_odd_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse `args`; an invalid choice is a usage error that suggests a valid one."""
        try:
            return super().parse_args(ctx, args)
        except BadParameter as error:
            error.message = _with_suggestion(error.message.removeprefix("Value error, "))
            raise


class Group(TyperGroup):
    """A group that suggests what an unknown command may have been meant to be."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its parameters, `--help` among them."""
        return _without_odd_types(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
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
