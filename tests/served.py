"""A small catalog, and a server of it in a thread of this process, for tests."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from shop import shop, write_products
from typer.testing import CliRunner

from mlcl_cli.cli.app import app as command_line
from mlcl_cli.config import load_profile
from mlcl_cli.server.app import create_app
from mlcl_cli.server.run import bind
from mlcl_cli.server.service import Service
from mlcl_cli.server.settings import ServerSettings

COUNT = 60  # products
HOSTILE = "<img src=x onerror=alert(1)> & 'quoted'"  # the name of the last one
COLORS, STYLES = ("red", "blue", "black", "white"), ("boot", "sandal", "pump")


@dataclass(frozen=True)
class Running:
    """A server's address, what answers within it, and the folder of its catalog."""

    address: str
    service: Service
    folder: Path


@contextmanager
def serving(folder: Path) -> Iterator[Running]:
    """A server of `COUNT` pictures in `folder`, two of each product."""
    shop(folder, COUNT)
    rows = [
        {
            "id": f"SKU/{number}",
            "name": f"Shoe {number}" if number < COUNT - 1 else HOSTILE,
            "image": f"photos/{number}.jpg",
            "product": f"product {number // 2}",
            "color": COLORS[number % 4],
            "style": STYLES[number // 4 % 3],
            "price": number / 2,
            "since": f"2026-01-{1 + number % 28:02}",
            "is_new": "true" if number % 5 == 0 else "false",
        }
        for number in range(COUNT)
    ]
    write_products(folder / "products.csv", rows)
    profile = folder / "mlcl.yaml"
    line = ["index", str(folder / "products.csv"), "--profile", str(profile)]
    outcome = CliRunner().invoke(command_line, line, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.stderr
    application = create_app(ServerSettings(load_profile(profile)))
    bound = bind("127.0.0.1", 0)
    runner = uvicorn.Server(uvicorn.Config(application, http="h11", log_config=None, access_log=False))
    thread = threading.Thread(target=runner.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        while not runner.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.02)
        yield Running(f"http://127.0.0.1:{bound.getsockname()[1]}", application.state.service, folder)
    finally:
        runner.should_exit = True
        thread.join()
        bound.close()
