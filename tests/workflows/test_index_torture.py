"""A short torture of `mlcl index`, and shards beside each other; `make torture` runs the long one."""

import subprocess
import sys
from pathlib import Path


def run(*arguments: str) -> str:
    """In a process of its own: it forks, which only a process with a single thread does well."""
    script = Path(__file__).with_name("index_torture.py")
    done = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-4000:]
    return done.stdout


def test_interrupted_indexing_ends_in_the_same_table() -> None:
    assert "Counter" in run("3")


def test_four_processes_at_once_give_the_table_of_one() -> None:
    """Each indexes a shard, or all of them the same."""
    run("at-once", "4")
