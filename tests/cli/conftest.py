"""The real command line, in this process."""

from pathlib import Path

import pytest
from command_line import Mlcl, Outcome
from typer.testing import CliRunner
from world import world

from mlcl_cli.cli.app import app


@pytest.fixture
def mlcl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Mlcl:
    """Runs a command line in `tmp_path`, or in `folder`; `stdin` is its input."""
    monkeypatch.delenv("MLCL_PROFILE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*command: str, folder: Path = tmp_path, stdin: str = "") -> Outcome:
        monkeypatch.chdir(folder)
        result = CliRunner().invoke(app, list(command), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def cirr_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIRR with a text-tuned CLIP and a combiner trained on it; tests change copies of it."""
    folder = world(tmp_path_factory.mktemp("cirr_runs"), "cirr", triplets=20)
    combiner = ("train-combiner", "--epochs", "1", "--set", "combiner.augmented_views=1")
    for command in (("finetune", "--encoder", "text", "--epochs", "1"), combiner):
        result = CliRunner().invoke(app, [*command, "--profile", str(folder / "mlcl.yaml")], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
    return folder
