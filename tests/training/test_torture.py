"""A short torture; `make torture` runs the long one."""

import subprocess
import sys
from pathlib import Path


def test_interrupted_commands_end_like_uninterrupted_ones() -> None:
    """In a process of its own: it forks, which only a process with a single thread does well."""
    script = Path(__file__).with_name("torture.py")
    done = subprocess.run([sys.executable, script, "12"], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-4000:]
    assert "12 of 12" in done.stdout or "Counter" in done.stdout


def test_interrupted_sweep_gives_the_same_table_to_the_last_digit() -> None:
    script = Path(__file__).with_name("sweep_torture.py")
    done = subprocess.run([sys.executable, script, "10"], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-4000:]
    assert "Counter" in done.stdout
