"""The real command line, in this process."""

from pathlib import Path

import pytest
from typer.testing import CliRunner
from world import world

from mlcl_cli.cli.app import app


@pytest.fixture(scope="session")
def cirr_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIRR with a text-tuned CLIP and a combiner trained on it; tests change copies of it."""
    folder = world(tmp_path_factory.mktemp("cirr_runs"), "cirr", triplets=20)
    combiner = ("train-combiner", "--epochs", "1", "--set", "combiner.augmented_views=1")
    for command in (("finetune", "--encoder", "text", "--epochs", "1"), combiner):
        result = CliRunner().invoke(app, [*command, "--profile", str(folder / "mlcl.yaml")], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
    return folder
