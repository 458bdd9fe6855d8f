"""A short torture of a store; `make torture` runs a long one."""

import subprocess
import sys
from pathlib import Path


def test_nothing_acknowledged_is_lost_by_cuts() -> None:
    script = Path(__file__).with_name("torture.py")
    done = subprocess.run([sys.executable, script, "2"], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-4000:]
    assert "Counter" in done.stdout
