"""What the shell offers: keys and values for `--set`, names of runs, and files. Imports no torch."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import typer

from mlcl_cli.errors import MlclError
from mlcl_cli.streams import printable

# bash ends a word at "=", and typer's script passes its words as they are, one per line.
_EQUALS = re.compile(r"\n=(\n(?=.)|\Z)")


def complete_override(incomplete: str) -> list[str]:
    """`KEY=` for each key that begins like `incomplete`, or `KEY=VALUE` once the key is whole or the only one left."""
    from mlcl_cli.config.error_messages import KEYS, choices

    key, equals, _ = incomplete.partition("=")
    keys = [name for name in KEYS if (name == key if equals else name.startswith(key))]
    if len(keys) == 1 and (values := choices(keys[0])):
        return [text for value in values if (text := f"{keys[0]}={value}").startswith(incomplete)]
    return [] if equals else [f"{name}=" for name in keys]


@contextlib.contextmanager
def bash_words() -> Iterator[None]:
    """Let bash complete what follows "=": typer gets `key=value` as one word, bash what it lacks of it."""
    if os.environ.get("_MLCL_COMPLETE") != "complete_bash" or "\n=" not in os.environ.get("COMP_WORDS", ""):
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


def runs_or_files(stage: str) -> Callable[[typer.Context, str], list[str]]:
    """A completion that offers the names of runs of `stage` ("*" is both), and files."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        folder, _, start = incomplete.rpartition("/")
        parent = Path(folder or ("/" if incomplete.startswith("/") else ".")).expanduser()
        paths = sorted(parent.iterdir()) if parent.is_dir() and os.access(parent, os.R_OK) else []
        shown = [path for path in paths if path.name.startswith(start) and (start or not path.name.startswith("."))]
        before = incomplete.removesuffix(start)
        files = [f"{before}{path.name}{'/' if path.is_dir() else ''}" for path in shown]
        return [*_runs(context, incomplete, stage), *files]

    return complete


def complete_runs(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the workspace's runs; none if the profile is invalid."""
    return _runs(context, incomplete, "*")


def complete_protocols(incomplete: str) -> list[str]:
    """Names of the built-in data sets' protocols."""
    from mlcl_cli.data.datasets import DATASETS

    names = (protocol.name for dataset in DATASETS.values() for protocol in dataset.protocols)
    return [name for name in names if name.startswith(incomplete)]


def _runs(context: typer.Context, incomplete: str, stage: str) -> list[str]:
    from mlcl_cli.config import find_profile, load_profile

    try:
        path, _ = find_profile(context.params.get("profile_path"), os.environ, Path.cwd())
        workspace = load_profile(path, context.params.get("overrides") or []).workspace
    except MlclError:
        return []
    folders = [path.parent for path in workspace.glob(f"{stage}/*/run.json")]
    names = [f"{folder.parent.name}/{folder.name}" if "/" in incomplete else folder.name for folder in folders]
    return sorted({name for name in names if name.startswith(incomplete) and printable(name) == name})
