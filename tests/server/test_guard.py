"""Bodies are bounded, and no address inside the network is fetched, whatever redirects say."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api import client_of, encoded, indexed_shop
from bombs import bombs, saved
from starlette.responses import Response
from starlette.testclient import TestClient

from mlcl_cli.server import addresses
from mlcl_cli.server.addresses import is_public
from mlcl_cli.server.guard import BodyMemory, Origins
from mlcl_cli.server.pictures import count_pixels, count_scans
from mlcl_cli.server.problems import ProblemError
from mlcl_cli.server.settings import Limits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return indexed_shop(tmp_path_factory.mktemp("guard"))


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    limits = Limits(body=100_000, body_seconds=0.5)
    with client_of(folder, limits=limits, allow_urls=True) as opened:
        yield opened


def test_a_large_body_is_refused_whether_announced_or_not(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    announced = client.post("/v1/search", content=b"x" * 100_001, headers=headers)
    parts = (b"x" * 1_000 for _ in range(200))
    for response in (announced, client.post("/v1/search", content=parts, headers=headers)):
        assert response.status_code == 413, response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["x-content-type-options"] == "nosniff"


def test_an_image_of_too_many_pixels_is_refused(client: TestClient, folder: Path) -> None:
    from PIL import Image

    path = folder / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    response = client.post("/v1/search", json={"image": encoded(path)})
    assert (response.status_code, response.json()["detail"]) == (422, "cannot be used: larger than 64 megapixels")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "::1", "::",
        "::7f00:1", "fec0::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)  # fmt: skip
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34"])
def test_addresses_outside_are_public(address: str) -> None:
    assert is_public(address)


class Site(http.server.ThreadingHTTPServer):
    """A site whose pages redirect, stall, or are images."""

    def __init__(self, image: bytes) -> None:
        self.image, self.asked = image, list[str]()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/inside":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data")
        elif self.path == "/around":
            self.send_response(302)
            self.send_header("Location", "/around")
        elif self.path == "/there":
            self.send_response(301)
            self.send_header("Location", "/image")
        else:
            self.send_response(200 if self.path in ("/image", "/large") else 404)
        self.end_headers()
        if self.path == "/image":
            self.wfile.write(self.server.image)
        if self.path == "/large":
            self.wfile.write(b"x" * 200_000)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site that takes the place of the web: the name `shop.example` and port 80 lead to it."""
    opened = Site((folder / "query.jpg").read_bytes())
    port = opened.server_address[1]
    real = addresses._public_address

    async def resolve(host: str, number: int) -> str:
        return f"127.0.0.1:{port}" if host == "shop.example" else await real(host, number)

    monkeypatch.setattr(addresses, "_public_address", resolve)
    monkeypatch.setattr(addresses, "_netloc", lambda address: address)
    thread = threading.Thread(target=opened.serve_forever, daemon=True)
    thread.start()
    yield opened
    opened.shutdown()
    opened.server_close()
    thread.join()


def test_an_image_at_a_public_address_is_fetched(client: TestClient, site: Site, folder: Path) -> None:
    expected = client.post("/v1/search", json={"image": encoded(folder / "query.jpg")}).json()["hits"]
    for page in ("image", "there"):
        found = client.post("/v1/search", json={"image": f"http://shop.example/{page}"})
        assert found.json()["hits"] == expected
    assert site.asked == ["/image", "/there", "/image"]


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("http://shop.example/inside", "leads to an address that is not public"),
        ("http://shop.example/around", "redirects too often"),
        ("http://shop.example/large", "is larger than"),
        ("http://shop.example/nope", "answers with status 404"),
        ("http://127.0.0.1/", "leads to an address that is not public"),
        ("http://localhost/", "leads to an address that is not public"),
        ("http://[::1]/", "leads to an address that is not public"),
        ("http://2130706433/", "leads to an address that is not public"),
        ("http://0x7f.1/", "leads to an address that is not public"),
        ("http://127.0.0.1:8000/", "names a port other than the usual one"),
        ("http://user@shop.example/", "is not an http or https address"),
        ("http://", "is not an http or https address"),
        ("http://a b/", "cannot be fetched"),
        ("https://[bad/", "cannot be fetched"),
    ],
)
@pytest.mark.usefixtures("site")
def test_other_addresses_are_refused(client: TestClient, url: str, detail: str) -> None:
    response = client.post("/v1/search", json={"image": url})
    assert response.status_code == 422
    assert detail in response.json()["detail"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:8000", 200), ("127.0.0.1:8000", 200), ("192.168.1.2", 200), ("[::1]:8000", 200),
        ("[::1]", 200), ("shop.example", 200), ("evil.example", 421), ("127.0.0.1.evil.example:8000", 421),
        ("localhost.evil.example", 421),
    ],
)  # fmt: skip
def test_a_local_server_answers_to_no_other_name(host: str, status: int) -> None:
    client = TestClient(Origins(client_app, ("shop.example",)))
    assert client.get("/", headers={"host": host}).status_code == status


async def client_app(scope: Any, receive: Any, send: Any) -> None:
    await Response()(scope, receive, send)


def test_a_form_of_another_site_is_refused(client: TestClient) -> None:
    response = client.post("/v1/search", files={"text": (None, "a")}, headers={"sec-fetch-site": "cross-site"})
    assert (response.status_code, response.json()["detail"]) == (403, "a page of another site sent this")
    assert client.post("/v1/search", json={"text": "a"}, headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_the_bodies_held_at_once_are_bounded_in_sum(folder: Path) -> None:
    memory = BodyMemory(100_000)
    memory.take(60_000)
    with pytest.raises(ProblemError) as raised:
        memory.take(60_000)
    assert (raised.value.status, raised.value.headers) == (503, {"Retry-After": "1", "Connection": "close"})
    with client_of(folder, limits=Limits(bodies=100_000)) as client:
        for _ in range(5):  # each is given back
            assert client.post("/v1/search", json={"text": "a", "image": "A" * 120_000}).status_code == 422
        assert client.post("/v1/search", json={"text": "a", "image": "A" * 200_000}).status_code == 503
        assert client.post("/v1/search", json={"text": "a"}).status_code == 200


def test_a_jpeg_of_too_many_scans_is_refused_and_common_ones_are_not() -> None:
    assert count_scans(bombs()["JPEG of many scans"]) > 1_000
    with pytest.raises(ProblemError, match="too many scans"):
        count_pixels(bombs()["JPEG of many scans"])
    assert count_pixels(saved("JPEG", (2_000, 2_000), progressive=True)) == 4_000_000
    assert count_scans(saved("JPEG", progressive=True)) == 10
    assert count_scans(saved("JPEG") + b"\xff\xda" * 10_000) == 1  # what follows the image, such as a film
