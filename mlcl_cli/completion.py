"""What the shell offers for names that only the workspace knows. Imports no torch."""

import os
from collections.abc import Callable
from pathlib import Path

import typer

from mlcl_cli.errors import MlclError

Complete = Callable[[typer.Context, str], list[str]]


def complete_runs(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the workspace's runs; nothing where the profile is not right."""
    return _runs(context, incomplete, "*")


def runs_or_files(stage: str) -> Complete:
    """A completion that offers the names of runs of `stage` ("*" is both), and files."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        folder, _, start = incomplete.rpartition("/")
        parent = Path(folder or ("/" if incomplete.startswith("/") else ".")).expanduser()
        before = incomplete[: len(incomplete) - len(start)]
        paths = sorted(parent.iterdir()) if parent.is_dir() and os.access(parent, os.R_OK) else []
        shown = [path for path in paths if path.name.startswith(start) and (start or not path.name.startswith("."))]
        files = [f"{before}{path.name}{'/' if path.is_dir() else ''}" for path in shown]
        return [*_runs(context, incomplete, stage), *files]

    return complete


def _runs(context: typer.Context, incomplete: str, stage: str) -> list[str]:
    from mlcl_cli.profile import find_profile, load_profile

    try:
        path, _ = find_profile(context.params.get("profile"), os.environ, Path.cwd())
        workspace = load_profile(path, context.params.get("overrides") or []).workspace
    except MlclError:
        return []
    folders = [path.parent for path in workspace.glob(f"{stage}/*/run.json")]
    by_name = "/" not in incomplete
    names = {folder.name if by_name else f"{folder.parent.name}/{folder.name}" for folder in folders}
    return sorted(name for name in names if name.startswith(incomplete))
