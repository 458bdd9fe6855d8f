"""Files that would block a reader or exhaust its memory are rejected in one line, wherever they are named."""

import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from command_line import Mlcl
from world import cirr, fashioniq, world

from mlcl_cli.cli.error_boundary import error_boundary

DEEP = "[" * 100_000
pytestmark = pytest.mark.timeout(60)


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def listener(path: Path) -> None:
    path.unlink(missing_ok=True)
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path must be short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def deep(path: Path) -> None:
    path.write_text(DEEP, encoding="utf-8")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("make", [fifo, device, listener])
def test_files_that_are_not_regular_are_rejected(mlcl: Mlcl, tmp_path: Path, make: Callable[[Path], None]) -> None:
    profile = tmp_path / "other.yaml"
    make(profile)
    outcome = mlcl("evaluate", "--profile", str(profile))
    assert outcome.code == 2
    assert "other.yaml: cannot be read (not a regular file)" in outcome.err

    world(tmp_path, "cirr")
    image = tmp_path / "data/dev/val-0-img0.png"
    make(image)
    outcome = mlcl("check", "--split", "val", "--json")
    assert outcome.code == 3
    assert f'"where": "{image}", "what": "not a regular file"' in outcome.out

    for name in ("cirr/captions/cap.rc2.val.json", "cirr/image_splits/split.rc2.val.json"):
        make(tmp_path / "data" / name)
        outcome = mlcl("evaluate", "--combining-function", "sum")
        assert outcome.code == 3
        assert f"{name}: cannot be read (not a regular file)" in outcome.err


def test_deep_json_is_reported_as_damaged(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    run = tmp_path / "work/combiner/one"
    run.mkdir(parents=True)
    deep(run / "run.json")
    outcome = mlcl("runs")
    assert outcome.code == 0
    assert "damaged" in outcome.out
    outcome = mlcl("evaluate")
    assert outcome.code == 3
    assert f"{run / 'run.json'}: " in outcome.err

    deep(tmp_path / "data/cirr/captions/cap.rc2.val.json")
    outcome = mlcl("evaluate", "--combining-function", "sum")
    assert outcome.code == 3
    assert "cap.rc2.val.json: nested too deeply" in outcome.err


@pytest.mark.parametrize("reader", [cirr, fashioniq])
def test_deep_name_lists_are_rejected(mlcl: Mlcl, tmp_path: Path, reader: Callable[[Path], Path]) -> None:
    world(tmp_path, reader.__name__)
    for path in (tmp_path / "data").rglob("split*.json"):
        deep(path)
    outcome = mlcl("evaluate", "--combining-function", "sum")
    assert outcome.code == 3
    assert "nested too deeply" in outcome.err


def test_model_larger_than_memory_is_a_machine_error(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**36, limits[1]))
    try:
        outcome = mlcl("train-combiner", "--set", "combiner.projection_dim=2000000000")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert outcome.code == 4, outcome.err
    assert "error: can't allocate memory: you tried to allocate" in outcome.err
    assert "Lower batch_size" in outcome.err


def too_large() -> None:
    torch.empty(10**15)


def bad_alloc() -> None:
    raise RuntimeError("std::bad_alloc")


def list_of_everything() -> None:
    [0] * 2**60


def unreadable() -> None:
    Path("/proc/self/mem").read_bytes()  # EIO


def under_a_file() -> None:
    Path("/dev/null/file").open(encoding="utf-8")  # noqa: SIM115


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (too_large, "can't allocate memory: you tried to allocate 4000000000000000 bytes. Lower batch_size"),
        (bad_alloc, "out of memory. Lower batch_size"),
        (list_of_everything, "out of memory. Lower batch_size"),
        (unreadable, "Input/output error. Check the disk"),
        (under_a_file, "/dev/null/file: Not a directory"),
    ],
)
def test_system_errors_exit_4_with_a_remedy(
    cause: Callable[[], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as end, error_boundary(debug=False):
        cause()
    assert end.value.exit_code == 4
    assert capsys.readouterr().err.startswith(f"error: {message}")
