"""Which file is the profile, and files that cannot be one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlcl_cli.config import find_profile, load_profile
from mlcl_cli.errors import UsageError


def test_the_option_wins_over_the_variable_over_the_working_folder(folder: Path) -> None:
    with pytest.raises(UsageError, match="Run `mlcl init`"):
        find_profile(None, {"MLCL_PROFILE": ""}, folder)
    (folder / "mlcl.yaml").touch()
    assert find_profile(None, {}, folder) == (folder / "mlcl.yaml", "./mlcl.yaml")
    (folder / "b.yaml").touch()
    env = {"MLCL_PROFILE": str(folder / "b.yaml")}
    assert find_profile(None, env, folder) == (folder / "b.yaml", "$MLCL_PROFILE")
    assert find_profile(Path("c.yaml"), env, folder) == (folder / "c.yaml", "--profile")
    assert find_profile(Path("~/c.yaml"), env, folder) == (Path.home() / "c.yaml", "--profile")
    with pytest.raises(UsageError, match="home"):
        find_profile(Path("~nobody-of-this-name/c.yaml"), {}, folder)


def test_an_unreadable_file_is_named_with_a_remedy(folder: Path) -> None:
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
def test_a_file_without_permission_is_a_usage_error(folder: Path) -> None:
    (folder / "mlcl.yaml").touch(mode=0)
    with pytest.raises(UsageError, match="cannot be read"):
        load_profile(folder / "mlcl.yaml")


def test_a_byte_order_mark_and_windows_lines_are_fine(folder: Path) -> None:
    (folder / "mlcl.yaml").write_bytes(b"\xef\xbb\xbfdataset: cirr\r\nseed: 3\r\n")
    assert load_profile(folder / "mlcl.yaml").seed == 3


def test_importing_config_imports_no_torch() -> None:
    code = "import sys, mlcl_cli.config; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
