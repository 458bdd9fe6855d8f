"""OpenMP's wait policy, chosen by real processes beside real busy ones."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcl_cli.openmp import LOAD, SLEEP, SPIN, VARIABLES, set_wait_policy

SHOW = """
import os, sys
sys.argv = ["mlcl", "--version"]
from mlcl_cli.__main__ import main
try:
    main()
except SystemExit:
    pass
print({name: os.environ[name] for name in %r if name in os.environ}, "torch" in sys.modules)
"""


@pytest.fixture
def busy() -> Iterator[None]:
    """Two programs that each keep a processor busy."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for program in programs:
        program.kill()
        program.wait()


def chosen_policy(**environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-c", SHOW % (VARIABLES,)]
    return subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()[-1]


@pytest.mark.skipif(not LOAD.exists(), reason="needs Linux")
@pytest.mark.usefixtures("busy")
def test_threads_sleep_beside_busy_programs_and_torch_is_not_loaded_yet() -> None:
    assert chosen_policy() == f"{SLEEP} False"


def test_a_policy_is_always_set() -> None:
    assert chosen_policy() in (f"{SLEEP} False", f"{SPIN} False")


@pytest.mark.parametrize("name", VARIABLES)
def test_a_setting_of_the_user_stays(name: str) -> None:
    environment = {name: "whatever"}
    set_wait_policy(environment)
    assert environment == {name: "whatever"}


def test_threads_spin_where_the_load_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for content in ("", "0.1 0.1 0.1", "a b c d"):
        (tmp_path / "loadavg").write_text(content)
        monkeypatch.setattr("mlcl_cli.openmp.LOAD", tmp_path / "loadavg")
        environment: dict[str, str] = {}
        set_wait_policy(environment)
        assert environment == SPIN
