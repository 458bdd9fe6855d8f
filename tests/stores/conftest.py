"""The databases that a catalog may be stored in."""

import secrets
from pathlib import Path

import pytest
from milvus_process import MILVUS
from store_oracle import Place

DATABASES = ["lancedb", *(["milvus"] if MILVUS else [])]


@pytest.fixture(params=DATABASES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A catalog that does not exist yet, in each database."""
    address = request.getfixturevalue("milvus_server") if request.param == "milvus" else request.param
    return Place(address, tmp_path, f"test-{secrets.token_hex(4)}")
