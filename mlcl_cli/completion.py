"""What the shell offers for `--set`: the profile's keys, and the values of those that have a fixed set."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator

# bash ends a word at "=", and typer's script hands over its words as they are, a line each.
_EQUALS = re.compile(r"\n=(\n(?=.)|\Z)")


def complete_override(incomplete: str) -> list[str]:
    """`KEY=` for each key that begins like `incomplete`, or `KEY=VALUE` once the key is whole or the only one left."""
    from mlcl_cli.profile.report import KEYS, choices

    key, equals, _ = incomplete.partition("=")
    keys = [name for name in KEYS if (name == key if equals else name.startswith(key))]
    if len(keys) == 1 and (values := choices(keys[0])):
        return [text for value in values if (text := f"{keys[0]}={value}").startswith(incomplete)]
    return [] if equals else [f"{name}=" for name in keys]


@contextlib.contextmanager
def bash_words(variable: str = "_MLCL_COMPLETE") -> Iterator[None]:
    """Lets bash complete what follows "=": typer gets `key=value` as one word, bash what it lacks of it."""
    if os.environ.get(variable) != "complete_bash" or "\n=" not in os.environ.get("COMP_WORDS", ""):
        yield
        return
    given, cursor = os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"])
    joined = _EQUALS.sub("=", "\n".join(given[: cursor + 1])).split("\n")
    os.environ["COMP_WORDS"] = "\n".join([*joined, *given[cursor + 1 :]])
    os.environ["COMP_CWORD"] = str(len(joined) - 1)
    key, equals, _ = joined[-1].partition("=")
    offered = io.StringIO()
    try:
        with contextlib.redirect_stdout(offered):
            yield
    finally:
        known = f"{key}{equals}" if equals else ""
        sys.stdout.writelines(line.removeprefix(known) for line in offered.getvalue().splitlines(keepends=True))
