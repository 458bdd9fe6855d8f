"""Which file is the profile, and files that are none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlcl_cli.config import find_profile, load_profile
from mlcl_cli.errors import UsageError


def test_the_profile_is_found(folder: Path) -> None:
    with pytest.raises(UsageError, match="Run `mlcl init`"):
        find_profile(None, {"MLCL_PROFILE": ""}, folder)
    (folder / "mlcl.yaml").touch()
    assert find_profile(None, {}, folder) == (folder / "mlcl.yaml", "./mlcl.yaml")
    env = {"MLCL_PROFILE": "/a/b.yaml"}
    assert find_profile(None, env, folder) == (Path("/a/b.yaml"), "$MLCL_PROFILE")
    assert find_profile(Path("c.yaml"), env, folder) == (folder / "c.yaml", "--profile")
    assert find_profile(Path("~/c.yaml"), env, folder) == (Path.home() / "c.yaml", "--profile")
    with pytest.raises(UsageError, match="home"):
        find_profile(Path("~nobody-of-this-name/c.yaml"), {}, folder)


def test_files_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"does not exist. Run `mlcl init`"):
        load_profile(folder / "none.yaml")
    with pytest.raises(UsageError, match="is a folder"):
        load_profile(folder)
    (folder / "latin.yaml").write_bytes(b"dataset: cirr\n# caf\xe9\n")
    with pytest.raises(UsageError, match=r"latin.yaml:2: is not UTF-8"):
        load_profile(folder / "latin.yaml")
    (folder / "wide.yaml").write_bytes("dataset: cirr\n".encode("utf-16"))
    with pytest.raises(UsageError, match=r"wide.yaml:1: is not UTF-8"):
        load_profile(folder / "wide.yaml")
    (folder / "large.yaml").write_bytes(b"#" * 5_000_000)
    with pytest.raises(UsageError, match="too large"):
        load_profile(folder / "large.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(folder: Path) -> None:
    (folder / "mlcl.yaml").touch(mode=0)
    with pytest.raises(UsageError, match="cannot be read"):
        load_profile(folder / "mlcl.yaml")


def test_a_byte_order_mark_and_windows_lines_are_fine(folder: Path) -> None:
    (folder / "mlcl.yaml").write_bytes(b"\xef\xbb\xbfdataset: cirr\r\nseed: 3\r\n")
    assert load_profile(folder / "mlcl.yaml").seed == 3


def test_importing_costs_no_torch() -> None:
    code = "import sys, mlcl_cli.config; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
