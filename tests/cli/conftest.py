"""The real command line, in this process."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlcl_cli.cli.app import app


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    def findings(self, check: str) -> list[dict[str, Any]]:
        """What `mlcl check --json` found in that check, errors or not."""
        return [finding for finding in json.loads(self.out)["findings"] if finding["check"] == check]


Mlcl = Callable[..., Outcome]


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
