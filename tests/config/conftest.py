"""Fixtures that write a profile and load it, or return its error."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlcl_cli.config import Profile, load_profile
from mlcl_cli.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the profile, without symbolic links."""
    return tmp_path.resolve()


@pytest.fixture
def load(folder: Path) -> Callable[..., Profile]:
    """`load(text, *overrides)`: the profile that this text makes."""

    def run(text: str, *overrides: str) -> Profile:
        path = folder / "mlcl.yaml"
        path.write_text(text, encoding="utf-8")
        return load_profile(path, overrides)

    return run


@pytest.fixture
def complaints(folder: Path, load: Callable[..., Profile]) -> Callable[..., list[str]]:
    """`complaints(text, *overrides)`: the lines of the error, without the file's folder."""

    def run(text: str, *overrides: str) -> list[str]:
        with pytest.raises(UsageError) as error:
            load(text, *overrides)
        return str(error.value).replace(f"{folder}/", "").splitlines()

    return run


@pytest.fixture
def complaint(complaints: Callable[..., list[str]]) -> Callable[..., str]:
    """`complaint(text, *overrides)`: the only line of the error."""

    def run(text: str, *overrides: str) -> str:
        (line,) = complaints(text, *overrides)
        return line

    return run
