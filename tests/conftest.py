"""Fixtures that many tests share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden() -> Path:
    """Figures that the method's original implementation computed."""
    return Path(__file__).parent / "golden"
