"""Help is instant, complete and has an example; the options that scripts use stay."""

import subprocess
import sys

import pytest
import typer
from conftest import Mlcl

from mlcl_cli import __version__
from mlcl_cli.cli import app

COMMON = {"--profile", "--set", "--quiet", "--json", "--debug", "--help"}
TRAINING = COMMON | {"--epochs", "--batch-size", "--learning-rate", "--resume", "--run", "--dry-run"}
OPTIONS = {
    "init": {"--dataset", "--output", "--force", "--debug", "--help"},
    "prepare-shoes": COMMON,
    "check": COMMON | {"--split", "--output"},
    "finetune": TRAINING | {"--encoder", "--from"},
    "train-combiner": TRAINING,
    "evaluate": COMMON | {"--checkpoint", "--combining-function", "--gallery", "--ranks"},
    "submit-cirr": COMMON | {"--name", "--checkpoint", "--combining-function"},
    "report": COMMON | {"--all", "--output", "--queries"},
    "export": {"--force", "--json", "--debug", "--help"},
    "bench": {"--only", "--repeats", "--device", "--smallest", "--quiet", "--json", "--debug", "--help"},
    "demo": {"--output", "--dataset", "--quiet", "--json", "--debug", "--help"},
}


def test_the_commands() -> None:
    assert {command.name for command in app.registered_commands} == OPTIONS.keys()


@pytest.mark.parametrize("name", OPTIONS)
def test_help_has_every_option_and_an_example(mlcl: Mlcl, name: str) -> None:
    outcome = mlcl(name, "--help")
    assert outcome.code == 0
    assert f"Example:  mlcl {name}" in outcome.out
    group = typer.main.get_command(app)
    options = {option for parameter in group.commands[name].params for option in parameter.opts}  # type: ignore[attr-defined]
    assert {option for option in options if option.startswith("--")} | {"--help"} == OPTIONS[name]
    assert all(option in outcome.out for option in OPTIONS[name])


def test_version_and_no_command(mlcl: Mlcl) -> None:
    assert mlcl("--version").out.strip() == f"mlcl {__version__}"
    assert "train-combiner" in mlcl().out


def test_help_and_profile_errors_import_nothing_heavy() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from mlcl_cli.cli import app\n"
        "CliRunner().invoke(app, ['finetune', '--help'])\n"
        "result = CliRunner().invoke(app, ['finetune', '--profile', 'none.yaml'])\n"
        "assert result.exit_code == 2, result.output\n"
        "assert not {'torch', 'numpy', 'PIL', 'clip'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_bug_of_ours_is_one_line_and_exit_code_1() -> None:
    script = (
        "import sys, mlcl_cli.profile; sys.argv = ['mlcl', 'evaluate']\n"
        "def broken(*_): raise ZeroDivisionError('boom')\n"
        "mlcl_cli.profile.find_profile = broken\n"
        "from mlcl_cli.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines() == ["error: ZeroDivisionError: boom. This is a bug of mlcl; --debug shows where"]
