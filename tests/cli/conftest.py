"""The real command line, in this process."""

from pathlib import Path

import pytest
from command_line import Mlcl, Outcome
from typer.testing import CliRunner

from mlcl_cli.cli.app import app


@pytest.fixture
def mlcl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Mlcl:
    """Runs a command line in `tmp_path`, or in `folder`."""
    monkeypatch.delenv("MLCL_PROFILE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*command: str, folder: Path = tmp_path) -> Outcome:
        monkeypatch.chdir(folder)
        result = CliRunner().invoke(app, list(command))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run
