"""A disk that fills up, one that cannot be written, and two processes at once: on real file systems, with real ones."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shop import product, shop, stored, write_products
from world import world

from mlcl_cli.runs.checkpoints import load_checkpoint

# A combiner whose state takes half a megabyte.
TRAIN = ("train-combiner", "--epochs", "5", "--set", "combiner.projection_dim=64", "--set", "combiner.hidden_dim=128")
EVERY = ("--set", "checkpoints.every_epochs=1", "--set", "combiner.augmented_views=1")
STATE = 12 * (16 * 64 * 2 + 128 * 128 * 2 + 128 * 16 * 2)


def mlcl(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    arguments = [sys.executable, "-m", "mlcl_cli", *command]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


def small_disk(folder: Path, megabytes: int, then: str) -> "subprocess.CompletedProcess[str]":
    """Runs this file's function `then` on a file system of its own, mounted at `folder` in a namespace of its own."""
    folder.mkdir(exist_ok=True)
    mount = f"mount -t tmpfs -o size={megabytes}m tmpfs {folder}"
    script = f"{mount} && exec {sys.executable} {Path(__file__)} {then} {folder} {folder.parent / 'world'}"
    tests = Path(__file__).parents[1]
    own = {**os.environ, "PYTHONPATH": f"{tests.parent}:{tests}"}
    command = ["unshare", "-rm", "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=own)


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


needs_mount = pytest.mark.skipif(not can_mount(), reason="needs to mount a file system in a namespace")


def fill(disk: Path, leave: int) -> Path:
    balloon = disk / "balloon"
    free = shutil.disk_usage(disk).free
    with balloon.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - leave)
    return balloon


def fills_up(disk: Path, source: Path) -> None:
    shutil.copytree(source, disk, dirs_exist_ok=True)
    assert mlcl(disk, "evaluate", "--combining-function", "sum").returncode == 0  # the banks are there
    assert mlcl(disk, *TRAIN, *EVERY, "--set", "workspace=whole").returncode == 0
    (whole,) = (disk / "whole/combiner").iterdir()
    expected = (whole / "metrics.jsonl").read_bytes()
    shutil.rmtree(disk / "whole")
    shutil.copytree(disk / "work/features", disk / "kept")

    balloon = fill(disk, STATE)
    refused = mlcl(disk, *TRAIN, *EVERY)
    assert refused.returncode == 4, refused.stderr
    assert "free, but a run's two training states take" in refused.stderr
    assert not (disk / "work/combiner").exists()

    balloon.unlink()
    balloon = fill(disk, 3 * STATE)
    stopped = mlcl(disk, *TRAIN, *EVERY)
    assert stopped.returncode == 4, stopped.stderr
    assert "No space left on device" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    (run,) = (disk / "work/combiner").iterdir()
    assert not list(run.glob("*.partial"))
    load_checkpoint(run / "last.safetensors")

    balloon.unlink()
    resumed = mlcl(disk, *TRAIN, *EVERY, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert (run / "metrics.jsonl").read_bytes() == expected


def read_only(disk: Path, source: Path) -> None:
    shutil.copytree(source, disk, dirs_exist_ok=True)
    (disk / "work").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    evaluated = mlcl(disk, "evaluate", "--combining-function", "sum", "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert evaluated.stderr.count("features are computed in memory and not saved") == 1
    checked = mlcl(disk, "check", "--json")
    assert checked.returncode == 0, checked.stdout
    assert not (disk / "work/features/checked.json").exists()
    for command in (TRAIN, ("finetune",)):
        refused = mlcl(disk, *command)
        assert refused.returncode == 4, refused.stderr
        assert "cannot be written" in refused.stderr or "cannot be created" in refused.stderr
        assert "Traceback" not in refused.stderr


def catalog_fills_up(disk: Path, _source: Path) -> None:
    shop(disk, count := 1_000)
    write_products(disk / "few.csv", [product(number) for number in range(20)])
    assert mlcl(disk, "index", "few.csv").returncode == 0
    before = stored(disk)
    balloon = fill(disk, 100_000)
    refused = mlcl(disk, "index", "products.csv")
    assert refused.returncode == 4, refused.stderr
    assert "No space left on device" in refused.stderr.splitlines()[-1]
    assert "Free up space" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr
    after = stored(disk)
    assert {name: after[name] for name in before} == before
    balloon.unlink()
    done = mlcl(disk, "index", "products.csv", "--json")
    assert done.returncode == 0, done.stderr
    assert len(stored(disk)) == count
    becomes_read_only(disk)


def becomes_read_only(disk: Path) -> None:
    """Searches go on, even if the machine has started anew and nobody could see to the table."""
    (mark,) = disk.glob("work/catalogs/default/*.synced.json")
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"boot": "before"}))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    found = mlcl(disk, "search", "red", "--json", "-k", "3")
    assert found.returncode == 0, found.stderr
    assert "the copy of the catalog that searches read cannot be kept here (Read-only file system)" in found.stderr
    assert len(json.loads(found.stdout)["hits"]) == 3
    refused = mlcl(disk, "index", "products.csv")
    assert refused.returncode == 4, refused.stderr
    assert "Read-only file system" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr


@needs_mount
@pytest.mark.parametrize(("case", "megabytes"), [("fills_up", 40), ("read_only", 400), ("catalog_fills_up", 40)])
def test_a_full_or_read_only_disk_is_one_error(tmp_path: Path, case: str, megabytes: int) -> None:
    world(tmp_path / "world", "cirr", triplets=30)
    done = small_disk(tmp_path / "disk", megabytes, case)
    assert done.returncode == 0, done.stderr[-3000:]


def started(folder: Path, *command: str) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-m", "mlcl_cli", *command]
    return subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_second_of_two_processes_on_one_run_is_refused(tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=30)
    first = started(tmp_path, *TRAIN, *EVERY, "--epochs", "100000")
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("work/combiner/*/last.safetensors")):
            assert time.monotonic() < deadline
            assert first.poll() is None
            time.sleep(0.1)
        second = mlcl(tmp_path, *TRAIN, *EVERY, "--epochs", "100000", "--resume")
        assert second.returncode == 4, second.stderr
        assert "another process is training this run" in second.stderr
    finally:
        first.terminate()
        _, stderr = first.communicate(timeout=60)
    assert first.returncode == 75, stderr
    assert "Resume with `mlcl train-combiner --epochs 5 " in stderr
    assert "--epochs 100000 --resume`" in stderr


def test_two_processes_fill_one_bank_in_turn(tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=30)
    command = ("evaluate", "--combining-function", "sum", "--json")
    both = [started(tmp_path, *command) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    first, second = (json.loads(out)["metrics"] for out, _ in results)
    assert first == second


if __name__ == "__main__":
    cases = {"fills_up": fills_up, "read_only": read_only, "catalog_fills_up": catalog_fills_up}
    cases[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
