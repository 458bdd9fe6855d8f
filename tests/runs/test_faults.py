"""Whatever ends a run, its last whole step is saved, the first error is the one reported, and it can be resumed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_resume import RESUME, contents, profile_of
from world import world

from mlcl_cli.errors import DivergedError, MachineError
from mlcl_cli.progress import NoProgress
from mlcl_cli.runs import run as run_module
from mlcl_cli.runs.checkpoints import load_state
from mlcl_cli.runs.logs import LINES, TABLE, TIMES, Logs
from mlcl_cli.runs.run import LAST, Run
from mlcl_cli.training import loop
from mlcl_cli.training.loop import Trainer
from mlcl_cli.workflows.stages import COMBINER
from mlcl_cli.workflows.train import train

EPOCHS = "60"
COMMAND = ("train-combiner", "--epochs", EPOCHS, "--set", "combiner.augmented_views=2")


class FaultError(Exception):
    """An error that no handler expects."""


def failing(real: Callable[..., object], at: int, error: BaseException) -> Callable[..., object]:
    """`real`, whose call number `at` raises."""
    calls = [0]

    def call(*args: object, **options: object) -> object:
        calls[0] += 1
        if calls[0] == at:
            raise error
        return real(*args, **options)

    return call


# The n-th call of a function: in the second of four epochs, or after the last.
PLACES: dict[str, tuple[object, str, int]] = {
    "a step": (Trainer, "_step", 5),
    "validation": (loop, "_validated", 2),
    "recording": (Run, "record", 2),
    "the first log": (Logs, "_append", 3),
    "the second log": (Logs, "_append", 4),
    "the table": (Logs, "write_table", 1),
    "display": (loop._Monitor, "show", 2),
    "saving by the clock": (Run, "save_if_due", 5),
}


@pytest.mark.parametrize("place", PLACES)
def test_run_that_fails_anywhere_is_saved_and_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    error = MemoryError() if place == "a step" else FaultError("boom")
    whole = train(profile_of(tmp_path, "workspace=whole", "combiner.augmented_views=1"), NoProgress(), COMBINER)
    profile = profile_of(tmp_path, "workspace=cut", "combiner.augmented_views=1")
    owner, name, at = PLACES[place]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing(getattr(owner, name), at, error))
        with pytest.raises(type(error)):
            train(profile, NoProgress(), COMBINER)
    (folder,) = (tmp_path / "cut/combiner").iterdir()
    state, _ = load_state(folder / LAST)
    assert (state.epoch, state.steps_done) >= (1, 3)
    resumed = train(profile, NoProgress(), COMBINER, resume=RESUME)
    assert contents(resumed.run) == contents(whole.run)


def test_partial_update_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(profile_of(tmp_path, "workspace=whole"), NoProgress(), COMBINER)
    profile = profile_of(tmp_path, "workspace=cut", "checkpoints.every_epochs=1")
    real = torch.optim.AdamW.step if issubclass(torch.optim.AdamW, torch.optim.Adam) else torch.optim.Adam.step
    calls = [0]

    def step(self: torch.optim.Optimizer, *args: object) -> object:
        calls[0] += 1
        result = real(self, *args)  # type: ignore[arg-type]
        if calls[0] == 5:
            raise MemoryError
        return result

    with monkeypatch.context() as patch:
        for kind in (torch.optim.Adam, torch.optim.AdamW):
            patch.setattr(kind, "step", step)
        with pytest.raises(MemoryError):
            train(profile, NoProgress(), COMBINER)
    assert calls[0] == 5
    (folder,) = (tmp_path / "cut/combiner").iterdir()
    assert (load_state(folder / LAST)[0].epoch, load_state(folder / LAST)[0].steps_done) == (2, 0)
    assert contents(train(profile, NoProgress(), COMBINER, resume=RESUME).run) == contents(whole.run)


def test_failing_save_does_not_hide_the_first_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MachineError("No space left on device")

    monkeypatch.setattr(run_module, "save_state", full)
    monkeypatch.setattr(run_module, "save_checkpoint", full)
    monkeypatch.setattr(Run, "_write_summary", failing(Run._write_summary, 2, OSError("full")))
    monkeypatch.setattr(Logs, "_append", failing(Logs._append, 4, FaultError("boom")))
    with pytest.raises(FaultError, match="boom"):
        train(profile_of(tmp_path), NoProgress(), COMBINER)


def test_diverged_run_keeps_the_last_finite_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_validated", failing(loop._validated, 2, DivergedError("not finite")))
    with pytest.raises(DivergedError):
        train(profile_of(tmp_path, "checkpoints.every_epochs=1"), NoProgress(), COMBINER)
    (folder,) = (tmp_path / "work/combiner").iterdir()
    assert load_state(folder / LAST)[0].epoch == 2


def start(folder: Path, *options: str, hangup: bool = True, **streams: object) -> subprocess.Popen[bytes]:
    """A real training process."""

    def set_hangup() -> None:  # whatever the tests were started with: nohup ignores it
        signal.signal(signal.SIGHUP, signal.SIG_DFL if hangup else signal.SIG_IGN)

    command = [sys.executable, "-m", "mlcl_cli", *COMMAND, *options]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | streams
    return subprocess.Popen(command, cwd=folder, preexec_fn=set_hangup, **quiet)  # type: ignore[call-overload,no-any-return]


def under_way(folder: Path, process: subprocess.Popen[bytes]) -> Path:
    """The folder of its run, once two epochs are logged."""
    for _ in range(6000):
        for log in (folder / "work/combiner").glob(f"*/{LINES}"):
            if log.read_bytes().count(b"\n") >= 2:
                return log.parent
        assert process.poll() is None, process.returncode
        time.sleep(0.01)
    raise AssertionError("no epoch within a minute")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return world(tmp_path, "cirr", triplets=60)


def test_sighup_saves_and_resumes_bit_for_bit(folder: Path) -> None:
    process = start(folder, stderr=subprocess.PIPE)
    run = under_way(folder, process)
    for _ in range(2):  # the kernel and the shell each send one when a terminal closes
        process.send_signal(signal.SIGHUP)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 75, text
    assert b"stopped by SIGHUP" in text
    assert start(folder, "--resume").wait(60) == 0
    cut = contents(run)
    run.rename(folder / "cut")
    assert start(folder).wait(60) == 0
    (whole,) = (folder / "work/combiner").iterdir()
    assert contents(whole) == cut


def test_sighup_is_ignored_under_nohup(folder: Path) -> None:
    process = start(folder, hangup=False)
    under_way(folder, process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_training_survives_a_closed_stderr(folder: Path, kind: str) -> None:
    reading, writing = os.pipe() if kind == "pipe" else os.openpty()
    process = start(folder, stderr=writing)
    os.close(writing)
    under_way(folder, process)
    os.close(reading)
    assert process.wait(60) == 0


def test_closed_standard_streams_do_not_receive_the_runs_files(folder: Path) -> None:
    command = f'exec "{sys.executable}" -m mlcl_cli train-combiner --epochs 2 --json <&- 2>&-'
    result = subprocess.run(["sh", "-c", command], cwd=folder, stdout=subprocess.PIPE, check=False)
    assert result.returncode == 0
    (run,) = (folder / "work/combiner").iterdir()
    assert (run / TIMES).read_bytes().count(b"\n") == 2


@pytest.mark.parametrize(("name", "code", "error"), [(LINES, 4, "cannot be written"), (TABLE, 3, "not a regular file")])
def test_unwritable_log_stops_the_run_and_saves_its_state(folder: Path, name: str, code: int, error: str) -> None:
    process = start(folder, stderr=subprocess.PIPE)
    run = under_way(folder, process)
    if (run / name).exists():
        (run / name).rename(folder / "log")
    (run / name).mkdir()
    _, text = process.communicate(timeout=60)
    assert process.returncode == code, text
    assert f"{name}: ".encode() in text
    assert error.encode() in text
    (run / name).rmdir()
    if (folder / "log").exists():
        (folder / "log").rename(run / name)
    state, about = load_state(run / LAST)
    assert state.epoch >= 2
    assert about["logs"][LINES] == (run / LINES).stat().st_size
    assert start(folder, "--resume").wait(60) == 0
    for log, header in ((LINES, 0), (TABLE, 1)):
        assert (run / log).read_bytes().count(b"\n") == int(EPOCHS) + header
