"""Broken streams, odd locales, deleted folders: the command works, or prints one line. Real processes, no mocks."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from world import world

ROOT = Path(__file__).parents[2]
MLCL = [sys.executable, "-m", "mlcl_cli"]
ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONIOENCODING": "ascii:strict"}
INIT = ("init", "--output", "new.yaml")


def start(folder: Path, *command: str, env: dict[str, str] | None = None, **how: Any) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    return subprocess.Popen([*MLCL, *command], cwd=folder, env=environment, text=True, **streams)


def run(folder: Path, *command: str, **how: Any) -> tuple[int, str, str]:
    process = start(folder, *command, **how)
    out, err = (text or "" for text in process.communicate(timeout=120))
    for word in ("Traceback", "Exception ignored", "bug in mlcl"):
        assert word not in err, err
    return process.returncode, out, err


@pytest.mark.parametrize("command", [("--help",), ("init", "--help"), INIT])
def test_closed_pipe_ends_the_command_quietly(tmp_path: Path, command: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert run(tmp_path, *command, stdout=writer) == (141, "", "")
    os.close(writer)


def test_full_stdout_is_an_error(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        code, _, err = run(tmp_path, *INIT, stdout=full)
    assert code == 4
    assert err == "error: standard output: cannot be written (No space left on device)\n"


def test_broken_stderr_is_ignored(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        code, out, _ = run(tmp_path, *INIT, stderr=full)
    assert (code, out[:14]) == (0, "Wrote new.yaml")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_are_not_reused_for_files(tmp_path: Path, closed: tuple[int, ...]) -> None:
    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    code, _, _ = run(tmp_path, *INIT, preexec_fn=close)
    assert code == 0
    assert (tmp_path / "new.yaml").read_text(encoding="utf-8").startswith("# ")


def test_ascii_locale_escapes_other_characters(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "runs", "--profile", "schön.yaml", env={"PYTHONIOENCODING": "ascii:strict"})
    assert (code, out) == (2, "")
    assert "sch\\xf6n.yaml: does not exist" in err
    code, out, _ = run(tmp_path, "--help", env=ASCII)
    assert code == 0
    assert "train-combiner" in out


def test_ascii_locale_keeps_json_complete_and_files_utf8(tmp_path: Path) -> None:
    folder = world(tmp_path / "schön", "cirr")
    with (folder / "mlcl.yaml").open("a", encoding="utf-8") as profile:
        profile.write("# ü\n")
    command = ("evaluate", "--combining-function", "sum", "--json")
    code, out, err = run(folder, *command, env={"PYTHONIOENCODING": "ascii:strict"})
    assert code == 0, err
    assert json.loads(out)["clip"] == str(folder / "clip.pt")


@pytest.mark.parametrize("command", [("runs",), ("init",), ("export", "a.safetensors", "b.pt"), ("evaluate",)])
def test_deleted_working_folder_is_a_one_line_error(tmp_path: Path, command: tuple[str, ...]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code, _, err = run(gone, *command, preexec_fn=gone.rmdir)
    assert (code, err) == (2, "error: the current folder was deleted. Change to a folder that exists\n")


@pytest.mark.parametrize(
    "env",
    [
        {"HOME": "/nonexistent"},
        {"TMPDIR": "/nonexistent"},
        {"TERM": "dumb", "COLUMNS": "1"},
        {"COLUMNS": "0"},
        {"COLUMNS": "99999"},
        {"LC_ALL": "tlh_KL.bogus", "LANG": "xx"},
        {"MLCL_PROFILE": ""},
    ],
    ids=str,
)
def test_unusual_environment_variables_do_not_break_commands(tmp_path: Path, env: dict[str, str]) -> None:
    code, out, err = run(tmp_path, "check", env=env)
    assert (code, out, "no profile found" in err.replace("\n", " ")) == (2, "", True)
    code, out, _ = run(tmp_path, "--help", env=env)
    assert code == 0
    assert out.strip()


LOCKLESS = """
import ctypes, struct, sys
# Linux's own filter: the system call flock answers {errno}, as a network drive without a lock server does.
instructions = [(0x20, 0, 0, 0), (0x15, 0, 1, {flock}), (0x06, 0, 0, 0x00050000 | {errno}), (0x06, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in instructions))
header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.addressof(header), 0, 0):
    sys.exit(99)
"""
FLOCK = {"x86_64": 73, "aarch64": 32}
USE = """
from pathlib import Path
from mlcl_cli.atomic_files import exclusive_lock
for _ in range(2):
    with exclusive_lock(Path(sys.argv[1]) / "lock", lambda: sys.exit("taken")):
        print("locked")
"""


@pytest.mark.skipif(os.uname().machine not in FLOCK, reason="needs the number of a system call")
@pytest.mark.parametrize("number", [37, 38, 95], ids=["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_file_system_without_locks_gives_one_warning(tmp_path: Path, number: int) -> None:
    script = LOCKLESS.format(errno=number, flock=FLOCK[os.uname().machine]) + USE
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    if done.returncode == 99:
        pytest.skip("needs seccomp")
    assert (done.returncode, done.stdout) == (0, "locked\nlocked\n"), done.stderr
    assert done.stderr.count("does not support locks; run only one mlcl command at a time") == 1
    assert done.stderr.count("\n") == 1


def bound_by_permissions() -> None:
    """Drop root's right to ignore permissions: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):
        libc.prctl(24, capability, 0, 0, 0)


def test_read_only_workspace_is_evaluated_in_memory(tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    features = tmp_path / "work/features"
    features.mkdir(parents=True)
    features.chmod(0o555)
    code, _, err = run(tmp_path, "evaluate", "--combining-function", "sum", preexec_fn=bound_by_permissions)
    assert code == 0, err
    assert err.count("The workspace cannot be written (Permission denied)") == 1
    assert not any(features.iterdir())


def test_read_only_lock_file_is_an_error(tmp_path: Path) -> None:
    script = "from pathlib import Path; from mlcl_cli.atomic_files import exclusive_lock as lock\n"
    script += "lock(Path('lock'), exit).__enter__()"
    (tmp_path / "lock").touch(0o444)
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    how: Any = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "check": False}
    done = subprocess.run(command, preexec_fn=bound_by_permissions, **how)
    assert "MachineError: lock: cannot be locked (Permission denied)" in done.stderr
