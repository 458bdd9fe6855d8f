"""The databases that a catalog may be stored in."""

import os
import secrets
from pathlib import Path

import pytest
from store_oracle import Place

DATABASES = ["lancedb", *(["milvus"] if os.environ.get("MLCL_MILVUS") else [])]  # `make milvus` sets it


@pytest.fixture(params=DATABASES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A catalog that does not exist yet, in each database."""
    address = request.getfixturevalue("milvus_server") if request.param == "milvus" else request.param
    return Place(address, tmp_path, f"test-{secrets.token_hex(4)}")
