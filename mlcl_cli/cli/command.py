"""Commands: functions that get their context (profile, progress, output mode) from the options that commands share."""

import functools
import inspect
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Concatenate, ParamSpec

import typer

from mlcl_cli.cli.command_classes import Command
from mlcl_cli.cli.completion import complete_override
from mlcl_cli.cli.error_boundary import error_boundary

if TYPE_CHECKING:
    from mlcl_cli.cli.terminal_progress import Terminal
    from mlcl_cli.config import Profile

logger = logging.getLogger(__name__)

P = ParamSpec("P")
SHARED = {
    "profile": Annotated[
        Path | None, typer.Option("--profile", "-p", help="The profile. Default: $MLCL_PROFILE, then ./mlcl.yaml.")
    ],
    "overrides": Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a profile key. Can be repeated.",
            autocompletion=complete_override,
        ),
    ],
    "quiet": Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Print only warnings, the chosen checkpoint, and progress every 30 seconds."
        ),
    ],
    "json": Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
}
DEFAULTS: Mapping[str, object] = {"profile": None, "overrides": None, "quiet": False, "json": False, "debug": False}
WITHOUT_PROFILE = ("quiet", "json", "debug")


class CommandContext:
    """The profile of a command, loaded on first use, its progress display, and whether it prints JSON."""

    def __init__(
        self, path: Path | None = None, overrides: list[str] | None = None, *, quiet: bool = False, json: bool = False
    ) -> None:
        self._path, self.overrides, self.quiet, self.json = path, overrides or [], quiet, json

    @cached_property
    def progress(self) -> "Terminal":
        """The terminal, which also prints log messages from here on."""
        from mlcl_cli.cli.terminal_progress import Terminal

        return Terminal(quiet=self.quiet)

    @cached_property
    def profile(self) -> "Profile":
        """The profile with its overrides; logs which file it is and why. Raises UsageError."""
        from mlcl_cli.config import find_profile, load_profile

        path, reason = find_profile(self._path, os.environ, Path.cwd())
        profile = load_profile(path, self.overrides)
        assert self.progress  # prints what follows
        logger.info(f"Profile: {path} ({reason})")
        return profile

    def show(self, result: Mapping[str, object]) -> None:
        """Print a result, for scripts or for people."""
        from mlcl_cli.cli.render import show

        show(result, json=self.json)


@dataclass(frozen=True)
class Setting:
    """An option that overrides the profile's `key`; `option` is its annotation."""

    key: str
    option: object


def command(
    app: typer.Typer,
    name: str,
    example: str,
    *,
    shared: tuple[str, ...] = tuple(SHARED),
    settings: Mapping[str, Setting] | None = None,
) -> Callable[[Callable[Concatenate[CommandContext, P], None]], Callable[..., None]]:
    """Register a function as a command with an error boundary.

    The function's first parameter is the context that the `shared` options and `settings` give; the others are the
    command's own options.
    """

    def register(function: Callable[Concatenate[CommandContext, P], None]) -> Callable[..., None]:
        app.command(name, cls=Command, epilog=f"Example:  {example}")(with_context(function, shared, settings))
        return function

    return register


def with_context(
    function: Callable[Concatenate[CommandContext, P], None],
    shared: tuple[str, ...],
    settings: Mapping[str, Setting] | None = None,
) -> Callable[..., None]:
    """`function` as typer calls it: with options in place of its context."""
    settings = settings or {}

    @functools.wraps(function)
    def _command_line(
        *,
        profile: Path | None = None,
        overrides: list[str] | None = None,
        quiet: bool = False,
        json: bool = False,
        debug: bool = False,
        **options: object,
    ) -> None:
        values = {name: options.pop(name) for name in settings}
        flags = [f"{settings[name].key}={value}" for name, value in values.items() if value is not None]
        with error_boundary(debug=debug):
            context = CommandContext(profile, [*(overrides or []), *flags], quiet=quiet, json=json)
            function(context, **options)  # type: ignore[call-arg, arg-type]

    arguments = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    extra: dict[str, tuple[object, object]] = {name: (own.option, None) for name, own in settings.items()}
    extra |= {name: (SHARED[name], DEFAULTS[name]) for name in shared}
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [parameter.replace(kind=keyword) for parameter in arguments]
    parameters += [
        inspect.Parameter(name, keyword, default=value, annotation=it) for name, (it, value) in extra.items()
    ]
    # What typer reads.
    _command_line.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    _command_line.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return _command_line
