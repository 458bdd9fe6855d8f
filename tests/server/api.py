"""A small shop behind the API, in the process of the tests."""

import base64
from pathlib import Path
from typing import Any

from shop import shop, write_products
from starlette.testclient import TestClient
from typer.testing import CliRunner
from world import picture

from mlcl_cli.cli.app import app
from mlcl_cli.config import load_profile
from mlcl_cli.server.app import create_app
from mlcl_cli.server.settings import ServerSettings

KEY = "a key of the tests"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
COUNT = 24


def indexed_shop(folder: Path) -> Path:
    """A folder with a catalog of products, two pictures each, that is indexed."""
    shop(folder, COUNT)
    rows = [
        {
            "id": f"sku{number}",
            "image": f"photos/{number}.jpg",
            "product": f"p{number // 2}",
            "price": number / 2,
            "color": ("red", "blue", "")[number % 3],
            "kept": number % 2 == 0,
            "since": f"2026-01-{number + 1:02}",
        }
        for number in range(COUNT)
    ]
    write_products(folder / "products.csv", rows)
    picture(folder / "query.jpg", 900)
    result = CliRunner().invoke(
        app, ["index", str(folder / "products.csv"), "--profile", str(folder / "mlcl.yaml")], catch_exceptions=False
    )
    assert result.exit_code == 0, result.stderr
    return folder


def settings_of(folder: Path, **changes: Any) -> ServerSettings:
    return ServerSettings(load_profile(folder / "mlcl.yaml"), **{"key": KEY, **changes})


def client_of(folder: Path, **changes: Any) -> TestClient:
    """A client whose server does not raise what it answers with status 500."""
    return TestClient(create_app(settings_of(folder, **changes)), raise_server_exceptions=False)


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
