"""Help is instant, complete and has an example; the options that scripts use stay."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from command_line import Mlcl
from world import write_json

from mlcl_cli import __version__
from mlcl_cli.cli.app import app
from mlcl_cli.cli.command_classes import MEANT
from mlcl_cli.data.datasets import DATASETS

COMMON = {"--profile", "--set", "--quiet", "--json", "--debug", "--help"}
TRAINING = COMMON | {
    "--epochs",
    "--batch-size",
    "--learning-rate",
    "--resume",
    "--run",
    "--dry-run",
    "--name",
    "--note",
}
OPTIONS = {
    "init": {"--dataset", "--from", "--output", "--force", "--debug", "--help"},
    "make-triplets": {
        "--attributes", "--within", "--image", "--changes", "--per-product", "--max-targets", "--templates",
        "--val-fraction", "--seed", "--output", "--quiet", "--json", "--debug", "--help",
    },
    "check": COMMON | {"--split", "--content", "--output"},
    "finetune": TRAINING | {"--encoder", "--from"},
    "train-combiner": TRAINING,
    "sweep": COMMON | {"--seeds", "--stage", "--markdown", "--latex", "--csv"},
    "evaluate": COMMON
    | {"--checkpoint", "--combining-function", "--gallery", "--ranks", "--predictions", "--protocol", "--describe"}
    | {"--intervals"},
    "score": COMMON | {"--protocol", "--intervals"},
    "compare": COMMON | {"--protocol"},
    "index": COMMON | {"--columns", "--sync", "--force", "--shard", "--ray", "--store", "--catalog"},
    "search": COMMON
    | {"--image", "--item", "--where", "--group-by", "--explain", "--checkpoint", "--combining-function", "--html"}
    | {"--interactive", "--store", "--catalog"},
    "serve": COMMON
    | {"--host", "--port", "--workers", "--checkpoint", "--combining-function", "--allow-urls", "--allow-host"}
    | {"--max-batch", "--max-waiting", "--store", "--catalog"},
    "report": COMMON | {"--all", "--output", "--queries"},
    "export": {"--force", "--profile", "--set", "--json", "--debug", "--help"},
    "bench": {"--only", "--repeats", "--device", "--smallest", "--quiet", "--json", "--debug", "--help"},
    "demo": {"--output", "--dataset", "--quiet", "--json", "--debug", "--help"},
}  # fmt: skip
PREPARATIONS = [dataset.preparation.command for dataset in DATASETS.values() if dataset.preparation]
SUBMISSIONS = [dataset.submission.command for dataset in DATASETS.values() if dataset.submission]
OPTIONS |= dict.fromkeys(PREPARATIONS, COMMON)
OPTIONS |= dict.fromkeys(SUBMISSIONS, COMMON | {"--name", "--checkpoint", "--combining-function"})


def test_every_command_is_listed_here() -> None:
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


def complete(folder: Path, shell: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Ask for completions as the shell's script does."""
    command, env = (
        [sys.executable, "-m", "mlcl_cli"],
        {**os.environ, "_MLCL_COMPLETE": f"complete_{shell}", **variables},
    )
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)


def test_version_is_printed_and_no_command_shows_help(mlcl: Mlcl) -> None:
    assert mlcl("--version").out.strip() == f"mlcl {__version__}"
    assert "train-combiner" in mlcl().out


def test_help_and_profile_errors_import_nothing_heavy() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from mlcl_cli.cli.app import app\n"
        "CliRunner().invoke(app, ['finetune', '--help'])\n"
        "result = CliRunner().invoke(app, ['finetune', '--profile', 'none.yaml'])\n"
        "assert result.exit_code == 2, result.output\n"
        "assert not {'torch', 'numpy', 'PIL', 'clip'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_bug_is_one_line_with_exit_code_1() -> None:
    script = (
        "import sys, mlcl_cli.config; sys.argv = ['mlcl', 'evaluate']\n"
        "def broken(*_): raise ZeroDivisionError('boom')\n"
        "mlcl_cli.config.find_profile = broken\n"
        "from mlcl_cli.cli.app import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines() == ["error: ZeroDivisionError: boom. This is a bug in mlcl; --debug shows where"]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["tr"], ["train-combiner"]),
        (["report", "--ou"], ["--output"]),
        (["finetune", "--encoder", "i"], ["image"]),
        (["report", "cirr-2"], ["cirr-20260101-000000", "cirr-20260102-000000"]),
        (["runs", "show", "cirr-20260102"], ["cirr-20260102-000000"]),
        (["runs", "show", "shoes"], []),
        (["demo", "--dataset", ""], ["fashioniq", "shoes", "cirr"]),
        (["evaluate", "--set", "combiner.ep"], ["combiner.epochs="]),
        (["evaluate", "--set", "checkpoints.e"], ["checkpoints.every_epochs=", "checkpoints.every_minutes="]),
        (["evaluate", "--set", "seed=1", "--set", "combiner.batch"], ["combiner.batch_size="]),
        (["evaluate", "--set", "dev"], ["device=auto", "device=cuda", "device=cpu"]),
        (["evaluate", "--set", "finetune.checkp"], [f"finetune.checkpoint_blocks={it}" for it in ("true", "false")]),
        (["evaluate", "--set", "device", "=", "c"], ["cuda", "cpu"]),
        (["evaluate", "--set", "device", "="], ["auto", "cuda", "cpu"]),
        (["evaluate", "--set", "clip.model", "=", "ViT-B"], ["ViT-B/32", "ViT-B/16"]),
        (["evaluate", "--set", "workers", "="], ["auto"]),
        (["evaluate", "--set", "device", "=", "cpu", "--set", "combiner.ba"], ["combiner.batch_size="]),
        (["evaluate", "--set", "device", "=", "cpu", "--check"], ["--checkpoint"]),
        (["evaluate", "--set", "nothing", "=", "x"], []),
    ],
)
def test_bash_completes_commands_options_and_runs(tmp_path: Path, words: list[str], offered: list[str]) -> None:
    (tmp_path / "mlcl.yaml").write_text("dataset: cirr\nworkspace: work\n")
    for name in ("finetune/cirr-20260101-000000", "combiner/cirr-20260102-000000"):
        write_json(tmp_path / "work" / name / "run.json", {})
    result = complete(tmp_path, "bash", COMP_WORDS="\n".join(["mlcl", *words]), COMP_CWORD=str(len(words)))
    assert result.stdout.split() == offered, result.stderr


def test_fish_completes_values_of_keys(tmp_path: Path) -> None:
    words = "mlcl evaluate --set precision=f"
    result = complete(tmp_path, "fish", _TYPER_COMPLETE_ARGS=words, _TYPER_COMPLETE_FISH_ACTION="get-args")
    assert result.stdout.split() == ["precision=fp32", "precision=fp16"], result.stderr


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("train", "Did you mean 'finetune' or 'train-combiner'?"),
        ("eval", "Did you mean 'evaluate'?"),
        ("submit", "Did you mean 'submit-cirr' or 'submit-circo'?"),
        ("train_combiner", "Did you mean 'train-combiner'?"),
        ("runs list", "Did you mean 'mlcl runs'?"),
        ("runs remove", "Did you mean 'rm'?"),
        ("runs sho", "Did you mean 'show'?"),
        ("runs zzz", "The commands are show, rm."),
        ("zzz", f"The commands are init, {', '.join(PREPARATIONS)}, check, finetune,"),
    ],
)
def test_unknown_command_suggests_known_ones(mlcl: Mlcl, command: str, hint: str) -> None:
    outcome = mlcl(*command.split())
    assert outcome.code == 2
    assert f"No such command '{command.split()[-1]}'. {hint}" in outcome.err


def test_suggested_commands_exist() -> None:
    group = typer.main.get_command(app)
    known = {*group.commands, *group.commands["runs"].commands}  # type: ignore[attr-defined]
    assert {name for names in MEANT.values() for name in names} <= known
    assert not MEANT.keys() & known


@pytest.mark.parametrize("width", ["80", "120"])
@pytest.mark.parametrize("name", [*OPTIONS, "runs", "runs show", "runs rm", ""])
def test_help_shows_no_types_of_flags_or_lists(
    mlcl: Mlcl, monkeypatch: pytest.MonkeyPatch, name: str, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    text = mlcl(*name.split(), "--help").out
    assert "--help" in text
    assert not re.search(r"<bool|<list", text)
    assert all(len(line) <= int(width) for line in text.splitlines())


def test_without_a_profile_no_run_is_completed(tmp_path: Path) -> None:
    result = complete(tmp_path, "bash", COMP_WORDS="mlcl report c", COMP_CWORD="2")
    assert (result.stdout.strip(), result.stderr) == ("", "")


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("init --dataset shoe", f"'shoe' is not one of {', '.join(map(repr, DATASETS))}. Did you mean 'shoes'?"),
        ("evaluate --combining-function summ", "Did you mean 'sum'?"),
        ("demo --dataset imagenet", "'imagenet' is not one of 'fashioniq', 'shoes', 'cirr'."),
        ("finetune --encoder q", "'q' is not one of 'text', 'image', 'both'."),
    ],
)
def test_invalid_choice_lists_and_suggests_valid_ones(mlcl: Mlcl, command: str, hint: str) -> None:
    outcome = mlcl(*command.split())
    assert outcome.code == 2
    assert hint in " ".join(outcome.err.replace("│", " ").split())
    assert "Value error" not in outcome.err
