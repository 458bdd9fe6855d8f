"""`mlcl index --ray` on a cluster of two workers, one of which is killed: `make ray` runs it."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import psutil
import pytest
from command_line import Outcome
from shop import assert_same_rows, product, shop, stored, write_products

pytestmark = pytest.mark.skipif(not os.environ.get("MLCL_RAY"), reason="takes a minute: `make ray` runs it")
CLUSTER = """
import sys
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
print("address", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # of the tests' own cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, psutil.Process]]:
    """The address of a Ray cluster of two processors, and the process that all others of it descend from."""
    command = [sys.executable, "-c", CLUSTER]
    head = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, env={**os.environ, **TOKEN})
    assert head.stdout is not None
    address = next(line.split()[1] for line in head.stdout if line.startswith("address"))
    yield address, psutil.Process(head.pid)
    head.communicate(timeout=60)


def index(folder: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "mlcl_cli", "index", "products.csv", "--json", *options]
    return subprocess.Popen(command, cwd=folder, stdout=PIPE, stderr=PIPE, text=True, env={**os.environ, **TOKEN})


def end(running: "subprocess.Popen[str]") -> Outcome:
    out, err = running.communicate(timeout=200)
    return Outcome(running.returncode, out, err)


def test_killed_worker_loses_nothing_and_repeats_nothing(tmp_path: Path, cluster: tuple[str, psutil.Process]) -> None:
    address, head = cluster
    folder = shop(tmp_path, count := 1_200)
    running = index(folder, "--ray", address, "--set", "clip.encode_batch=1")
    workers: list[psutil.Process] = []
    while len(workers) < 2:
        time.sleep(0.2)
        assert running.poll() is None, end(running)
        workers = [process for process in head.children(recursive=True) if "MapWorker" in process.name()]
    time.sleep(6)
    assert running.poll() is None
    workers[0].kill()
    result = end(running).json
    assert (result["rows"], result["current"]) == (count, True)
    assert result["added"] + result["unchanged"] == count

    assert end(index(folder, "--catalog", "whole")).json["added"] == count
    assert_same_rows(stored(folder), stored(folder, "whole"))


def test_sync_counts_over_all_shards_before_it_removes(tmp_path: Path, cluster: tuple[str, psutil.Process]) -> None:
    folder = shop(tmp_path, 40)
    assert end(index(folder)).json["added"] == 40
    for kept, options, code in ((30, (), 3), (34, (), 0), (20, ("--force",), 0)):
        write_products(folder / "products.csv", [product(number) for number in range(kept)])
        outcome = end(index(folder, "--sync", "--ray", cluster[0], *options))
        assert outcome.code == code, outcome.err
        if code:
            assert "10 of 40 rows" in outcome.err
        else:
            assert outcome.json["removed"] == (6 if kept == 34 else 14)
            assert len(stored(folder)) == kept


def test_error_of_a_worker_is_one_line(tmp_path: Path, cluster: tuple[str, psutil.Process]) -> None:
    folder = shop(tmp_path, 4)
    assert end(index(folder)).code == 0
    write_products(folder / "products.csv", [product(number) | {"price": "cheap"} for number in range(4)])
    outcome = end(index(folder, "--ray", cluster[0]))
    assert outcome.code == 3
    assert "error: " in outcome.err.splitlines()[-1]
    assert "the catalog stores 'price' as numbers, so 'cheap' does not fit" in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err
