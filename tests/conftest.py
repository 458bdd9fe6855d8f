"""Fixtures that many tests share."""

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Mlcl, Outcome
from hypothesis import settings
from milvus_process import MILVUS, MilvusProcess
from typer.testing import CliRunner

from mlcl_cli.cli.app import app
from mlcl_cli.openmp import set_wait_policy

set_wait_policy(os.environ)  # as the entry point does, before any test imports torch
settings.register_profile("mlcl", deadline=None)  # a busy machine is no failure
settings.load_profile("mlcl")


@pytest.fixture
def mlcl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Mlcl:
    """Runs a command line in `tmp_path`, or in `folder`; `stdin` is its input."""
    monkeypatch.delenv("MLCL_PROFILE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*command: str, folder: Path = tmp_path, stdin: str = "") -> Outcome:
        monkeypatch.chdir(folder)
        result = CliRunner().invoke(app, list(command), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, headless."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium: `make browser` installs Debian's")
    with playwright.sync_playwright() as engine:
        launched = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def golden() -> Path:
    """Figures that the method's original implementation computed."""
    return Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _keep_denormals() -> Iterator[None]:
    """A command flushes denormals for its process, which would bend Python's own floats in the tests that follow."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """A command sets the package's log level and handler for its process."""
    package = logging.getLogger("mlcl_cli")
    level, handlers = package.level, [*package.handlers]
    yield
    package.setLevel(level)
    package.handlers = handlers


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Milvus server, which stops with the tests."""
    if MILVUS.startswith("milvus://"):
        yield MILVUS
        return
    folder = tmp_path_factory.mktemp("milvus")
    server = MilvusProcess(folder)
    try:
        server.start()
        yield server.address
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
