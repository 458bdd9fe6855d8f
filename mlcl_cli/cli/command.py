"""Commands: functions whose context (profile, progress, output mode) comes from the options that commands share."""

import functools
import inspect
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Concatenate, ParamSpec, get_args

import typer

from mlcl_cli.cli.command_classes import Command
from mlcl_cli.cli.completion import complete_override
from mlcl_cli.cli.error_boundary import error_boundary

if TYPE_CHECKING:
    from mlcl_cli.cli.terminal_progress import Terminal
    from mlcl_cli.config import Profile

logger = logging.getLogger(__name__)

P = ParamSpec("P")
WITHOUT_PROFILE = ("quiet", "json", "debug")


@dataclass(frozen=True, kw_only=True)
class CommandContext:
    """The options that commands share; the profile, loaded on first use, and the progress display.

    `options` holds the overrides that a command's own options stand for, each with the option as it was typed.
    """

    profile_path: Annotated[
        Path | None, typer.Option("--profile", "-p", help="The profile. Default: $MLCL_PROFILE, then ./mlcl.yaml.")
    ] = None
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a profile key. Can be repeated.",
            autocompletion=complete_override,
        ),
    ] = None
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Print only warnings, the chosen checkpoint, and progress every 30 seconds."
        ),
    ] = False
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False
    options: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def progress(self) -> "Terminal":
        """The terminal, which also prints log messages from here on."""
        from mlcl_cli.cli.terminal_progress import Terminal

        return Terminal(quiet=self.quiet)

    @cached_property
    def profile(self) -> "Profile":
        """The profile with its overrides; logs which file it is and why. Raises UsageError."""
        from mlcl_cli.config import find_profile, load_profile

        path, reason = find_profile(self.profile_path, os.environ, Path.cwd())
        profile = load_profile(path, self.overrides or (), self.options)
        assert self.progress  # prints what follows
        logger.info(f"Profile: {path} ({reason})")
        return profile

    def show(self, result: Mapping[str, object], display: Callable[[], None] | None = None) -> None:
        """Print a result as JSON for scripts, or for people: with `display`, or its metrics and facts as they are."""
        from mlcl_cli.cli.render import show_json, show_result

        if self.json:
            show_json(result)
        elif display is not None:
            display()
        else:
            show_result(result)


def command(
    app: typer.Typer,
    name: str,
    example: str,
    *,
    shared: Sequence[str] = ("profile_path", "overrides", *WITHOUT_PROFILE),
    settings: Mapping[str, object] | None = None,
) -> Callable[[Callable[Concatenate[CommandContext, P], None]], Callable[..., None]]:
    """Register a function as a command with an error boundary.

    The function's first parameter is the context, made from the `shared` options and from `settings`: options by the
    profile's key that each overrides. The other parameters are the command's own options.
    """

    def register(function: Callable[Concatenate[CommandContext, P], None]) -> Callable[..., None]:
        app.command(name, cls=Command, epilog=f"Example:  {example}")(with_context(function, shared, settings or {}))
        return function

    return register


def with_context(
    function: Callable[Concatenate[CommandContext, P], None], shared: Sequence[str], settings: Mapping[str, object]
) -> Callable[..., None]:
    """`function` as typer calls it: with options in place of its context."""

    @functools.wraps(function)
    def _command_line(**values: object) -> None:
        options = {}
        for key in settings:
            name = key.rpartition(".")[2]
            if (value := values.pop(name)) is not None:
                options[f"{key}={value}"] = f"{_spelling(name, settings[key])} {value}"
        context = CommandContext(**{name: values.pop(name) for name in shared}, options=options)  # type: ignore[arg-type]
        with error_boundary(debug=context.debug):
            function(context, **values)  # type: ignore[call-arg, arg-type]

    keyword = inspect.Parameter.KEYWORD_ONLY
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    context_options = inspect.signature(CommandContext, eval_str=True).parameters
    parameters = [parameter.replace(kind=keyword) for parameter in own]
    for key, option in settings.items():
        parameters.append(inspect.Parameter(key.rpartition(".")[2], keyword, default=None, annotation=option))
    parameters += [context_options[name] for name in shared]
    # What typer reads.
    _command_line.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    _command_line.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return _command_line


def _spelling(name: str, annotation: object) -> str:
    """The option as it is typed, whose own name may differ from its key's."""
    # typer takes the first spelling for a default until it reads the signature.
    declared = [text for option in get_args(annotation)[1:] for text in (option.default, *(option.param_decls or ()))]
    return next((text for text in declared if isinstance(text, str)), f"--{name.replace('_', '-')}")
