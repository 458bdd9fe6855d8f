"""Commands write to regular files or to standard output, and leave anything else alone."""

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Mlcl
from world import world

from mlcl_cli.atomic_files import require_replaceable, write_file, write_files
from mlcl_cli.errors import UsageError

SUM = ("evaluate", "--combining-function", "sum", "--ranks")
WRITERS = (
    SUM,
    ("check", "--split", "val", "--output"),
    ("init", "--force", "--output"),
)


def device(path: Path) -> Path:
    """A device node for /dev/null."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes device nodes")
    return path


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("outputs"), "cirr", triplets=8)


@pytest.mark.parametrize("command", WRITERS, ids=lambda command: command[0])
@pytest.mark.parametrize("make", [device, fifo])
def test_devices_and_pipes_are_rejected_and_kept(
    mlcl: Mlcl, data: Path, tmp_path: Path, command: tuple[str, ...], make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path / "out.csv")
    before = path.stat()
    outcome = mlcl(*command, str(path), folder=data)
    assert outcome.code == 2, outcome.err
    assert f"{path}: is not a regular file" in outcome.err
    assert (path.stat().st_ino, path.stat().st_mode) == (before.st_ino, before.st_mode)
    assert names(tmp_path) == ["out.csv"]


def test_link_to_a_device_is_rejected(tmp_path: Path) -> None:
    link = tmp_path / "null.csv"
    link.symlink_to(os.devnull)
    with pytest.raises(UsageError, match="is not a regular file"):
        require_replaceable(link, "x", "a table")
    with pytest.raises(UsageError, match="is not a regular file"):
        write_file(link, b"text")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_no_file_is_written_if_one_is_rejected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "old").write_text("old")
    with pytest.raises(UsageError):
        write_files({tmp_path / "old": b"new", tmp_path / "new": b"new", tmp_path / "pipe": b"new"})
    assert names(tmp_path) == ["old", "pipe"]
    assert (tmp_path / "old").read_text() == "old"


def test_link_is_kept_and_its_target_is_written(mlcl: Mlcl, data: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere/ranks.csv", tmp_path / "ranks.csv"
    link.symlink_to("elsewhere/ranks.csv")  # dangling at first
    for _ in range(2):
        assert mlcl(*SUM, str(link), folder=data).code == 0
        assert link.is_symlink()
        assert target.read_text().startswith("set,pair_id")
    write_file(link, b"text")
    assert link.is_symlink()
    assert target.read_text() == "text"


def test_ranks_can_be_written_to_standard_output(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mlcl_cli", *SUM, "/dev/stdout", "--quiet"]
    piped = subprocess.run(command, cwd=data, capture_output=True, text=True, check=False)
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout.startswith("set,pair_id")
    assert "cirr-val" in piped.stdout
    with (tmp_path / "out").open("w") as file:
        subprocess.run(command, cwd=data, stdout=file, check=True)
    assert (tmp_path / "out").read_text() == piped.stdout


def test_nothing_is_written_to_a_pipe(mlcl: Mlcl, data: Path, tmp_path: Path) -> None:
    path = fifo(tmp_path / "out.csv")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    assert mlcl(*SUM, str(path), folder=data).code == 2
    os.close(os.open(path, os.O_WRONLY))  # ends the reader
    reader.join(10)
    assert read == [b""]
