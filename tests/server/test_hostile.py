"""Whatever is sent, a server answers soon and in one form, writes nothing without the key, and does not grow.

With MLCL_HOSTILE=1, some thousands of requests instead of some hundreds.
"""

import base64
import http.client
import json
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
import schemathesis
import torch
from api import COUNT, KEY, indexed_shop
from bombs import bombs, samples
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as from_seed
from hypothesis import strategies as st
from test_process import Running

from mlcl_cli.config import load_profile
from mlcl_cli.stores.open import open_catalog

IS_LONG = "MLCL_HOSTILE" in os.environ
ROUNDS = 5 if IS_LONG else 1
PATIENCE = 20  # seconds, on a busy machine
GROWTH = 60 * 2**20  # bytes of memory
BOUNDARY = "b0undary"
JSON, NDJSON = "application/json", "application/x-ndjson"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
NAMES = ["price", "color", "kept", "since", "id", "product", "nope", "__proto__", "constructor", "vector", "_rowid"]
AGAINST_SQL = [
    "' or 1=1 --", "'; drop table items; --", "x' union select vector from t --", "\\' or ''='", "`a`", "``", "\x00",
    "‘ or ’1’=’1", "ʼ", "'/**/or/**/1=1", "arrow_cast(1,'x')", "${jndi:ldap://a}", "{{7*7}}", "\r\nX-A: b", "\ufeff",
    "\u202e", "%27", "''''", '"', "$(id)", "../../../../etc/passwd", "true", "NaN", "1e999", "-9223372036854775809",
]  # fmt: skip
PATHS = [
    "..", "../../etc/passwd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c..%5cwindows", "%00", "sku1%00.jpg",
    "%2fetc%2fpasswd",
    "/etc/passwd", "%252e%252e%252f", "%c0%ae%c0%ae/", "%ff%fe", "a" * 501, "%0d%0aX-A:%20b", "%F0%9F%91%9F",
    "sku1/image/x",
    "file:///etc/passwd", ".", "~root", "$HOME", "%u002e", "sku1;a=b", "%27%20or%201=1", "image", "", "%ED%A0%80",
]  # fmt: skip
ADDRESSES = [
    "http://127.0.0.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://169.254.169.254/latest", "http://0/",
    "http://0x7f000001/", "http://017700000001/", "http://localhost/", "http://10.0.0.1/", "http://[fec0::1]/",
    "http://[::127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://user:pw@127.0.0.1/", "http://127.0.0.1:22/",
    "http://[fe80::1%25lo]/",
    "https://127.0.0.1/", "http:///", "http://\x00/", "http://①②⑦.⓪.⓪.①/", "http://127.0.0.1\\@a.example/", "http://[",
    "http://a\r\nb/",
]  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What goes over the wire."""

    method: str
    path: str
    content: bytes = b""
    kind: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def wire(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(self.content)}"]
        lines += [] if self.kind is None else [f"Content-Type: {self.kind}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + self.content


@dataclass
class Attacked:
    """A server under attack, and how it answered."""

    running: Running
    folder: Path
    statuses: Counter[int | str] = field(default_factory=Counter)
    slowest: float = 0

    def send(self, wire: bytes, method: str = "GET", *, shut: bool = False) -> int | str:
        """Send bytes, and check the answer. `shut`: no more will follow."""
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", self.running.port), timeout=PATIENCE) as connection:
            with suppress(OSError):  # it may answer before it has read everything
                connection.sendall(wire)
                if shut:
                    connection.shutdown(socket.SHUT_WR)
            response = http.client.HTTPResponse(connection, method=method)
            try:
                response.begin()
                self.check(response.status, response.headers.items(), response.read())
                status: int | str = response.status
            except (ConnectionError, http.client.RemoteDisconnected):
                status = "closed"
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.statuses[status] += 1
        return status

    def check(self, status: int, given_headers: Any, content: bytes) -> None:
        headers = {name.lower(): value for name, value in given_headers}
        assert status < 500 or (status == 503 and "retry-after" in headers), content
        assert headers["x-content-type-options"] == "nosniff"
        assert "x-a" not in headers
        if status >= 400:
            assert headers["content-type"] == "application/problem+json", content
        for secret in (str(self.folder), "Traceback", "site-packages", KEY):
            assert secret.encode() not in content, content

    def memory(self) -> int:
        process = psutil.Process(self.running.process.pid)
        return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    folder = indexed_shop(tmp_path_factory.mktemp("hostile"))
    torch.set_flush_denormal(False)  # which the command has set, and hypothesis does not like
    running = Running(folder, "--allow-urls")
    running.wait()
    yield Attacked(running, folder)
    running.stop()


def version(folder: Path) -> str:
    profile = load_profile(folder / "mlcl.yaml")
    table = open_catalog(profile.catalog.store, profile.workspace / "catalogs", profile.catalog.name).current()
    assert table is not None
    return table.version


def form(fields: list[tuple[str, bytes]], end: bytes = b"--") -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'.encode("utf-8", "replace")
        + (b'; filename="../../a.jpg"' if name == "image" else b"")
        + b"\r\n\r\n" + value + b"\r\n"
        for name, value in fields
    ]  # fmt: skip
    return b"".join(parts) + f"--{BOUNDARY}".encode() + end


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


odd_text = st.sampled_from(AGAINST_SQL) | st.text(st.characters(), max_size=20)  # with unpaired surrogates
odd_number = st.sampled_from([10**400, -(2**63) - 1, 2**64, 1e308, -0.0, 1e-320, 0]) | st.integers() | st.floats()
odd_scalar = odd_text | odd_number | st.booleans() | st.none()
odd_json = st.recursive(
    odd_scalar, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(odd_text, inner, max_size=4), max_leaves=8
)
odd_name = st.sampled_from(NAMES) | odd_text
operator = st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "in", "like", "or", ""])
triples = st.lists(st.tuples(odd_name, operator, odd_scalar | st.lists(odd_scalar, max_size=4)), max_size=4)
where_text = st.builds("{} {} '{}'".format, odd_name, operator, odd_text) | odd_text
asked = st.fixed_dictionaries(
    {"text": st.just("red") | odd_text},
    optional={
        "where": triples | where_text | odd_json,
        "exclude": st.lists(odd_text, max_size=5) | odd_json,
        "group_by": odd_name | odd_json,
        "item": st.sampled_from(["sku1", "p3"]) | odd_text,
        "k": st.integers(-1, 300) | odd_scalar,
        "image": st.sampled_from(ADDRESSES) | odd_json,
        "explain": odd_json,
    },
)
search = st.builds(lambda body: Request("POST", "/v1/search", as_json(body), JSON), asked)
HUGE = {
    "deep": b"[" * 9_000,
    "deep object": b'{"text":' * 5_000,
    "deeper": b"[" * 2**20,
    "many values": b'{"exclude":[' + b"1," * 10**6 + b"1]}",
    "many keys": as_json({str(number): number for number in range(100_000)}),
    "long number": b'{"k":' + b"9" * 10**6 + b"}",
    "long text": as_json({"text": "a" * 10**6}),
    "long image": as_json({"image": "A" * 10**6}),
    "oversized": b"x" * (17 * 2**20),
}
other_bodies = st.builds(
    Request,
    st.sampled_from(["POST", "PUT", "DELETE", "PATCH"]),
    st.sampled_from(["/v1/search", "/v1/search", "/v1/items", "/v1/items/sku1"]),
    st.sampled_from([*HUGE.values()]) | st.binary(max_size=300) | st.builds(as_json, odd_json),
    st.sampled_from([None, JSON, NDJSON, FORM, "text/plain", "multipart/form-data", "image/png",
                     f"{FORM}; charset=punycode",
                     f"{FORM}; charset=undefined", "multipart/form-data; boundary=" + "a" * 300,
                     "application/json; charset=utf-7"]),
)  # fmt: skip
fields = st.lists(
    st.tuples(
        st.sampled_from(["text", "where", "exclude", "k", "group_by", "image"]) | odd_name,
        st.builds(as_json, odd_json) | st.binary(max_size=60) | st.sampled_from([b"[" * 5_000, b'["\\ud800"]', b"red"]),
    ),
    max_size=5,
)
forms = st.builds(
    lambda given, end: Request("POST", "/v1/search", form(given, end), FORM),
    fields,
    st.sampled_from([b"--", b"", b"\r\n", b"--\r\n" + b"x" * 1_000]),
)


@st.composite
def images(draw: st.DrawFn) -> Request:
    """A bomb, or an image that has been damaged, in any of the forms that a search takes."""
    if draw(st.booleans()):
        data = draw(st.sampled_from([*bombs().values()]))
    else:
        data = bytearray(draw(st.sampled_from(samples())))
        for place, byte in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=12)):
            data[place] = byte
        data = bytes(data[: draw(st.integers(len(data) // 2, len(data)))])
    if draw(st.booleans()):
        return Request("POST", "/v1/search", form([("text", b"a"), ("image", data)]), FORM)
    head = draw(st.sampled_from(["", "data:image/png;base64,", "data:text/html;base64,"]))
    return Request("POST", "/v1/search", as_json({"image": head + base64.b64encode(data).decode()}), JSON)


paths = st.builds(
    lambda method, before, path, after, headers: Request(method, f"{before}{path}{after}", headers=headers),
    st.sampled_from(["GET", "GET", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]),
    st.sampled_from(["/v1/items/", "/docs/", "/", "/v1/items/sku1/", "//"]),
    st.sampled_from(PATHS) | st.builds(lambda text: quote(text, errors="replace"), st.text(max_size=20)),
    st.sampled_from(["", "/image", "?where=a"]),
    st.lists(
        st.sampled_from(
            [("Authorization", "Bearer wrong"), ("Authorization", "Bearer é"), ("X-HTTP-Method-Override", "DELETE"),
             ("X-Forwarded-For", "127.0.0.1"), ("Range", "bytes=0-1,2-3,4-5"), ("Accept-Encoding", "gzip;q=1e9"),
             ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Cookie", "a=" + "b" * 5_000),
             ("Expect", "100-continue")]
        ),
        max_size=3,
        unique=True,
    ).map(tuple),
)  # fmt: skip
browsing = st.builds(
    lambda where, start, count, key: Request(
        "GET", f"/v1/items?where={quote(where, errors='replace')}&start={start}&count={count}&api_key={key}"
    ),
    where_text,
    st.sampled_from([0, -1, 2**31, 10**30, "NaN"]),
    st.sampled_from([1, 0, 200, 10**9, ""]),
    st.just(quote(KEY)),
)
HEAD = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SMUGGLED = b"DELETE /v1/items/sku1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKS = b'd\r\n{"text": "a"}\r\n0\r\n\r\n'
WIRES = [
    HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS + SMUGGLED,
    HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
    HEAD + b"Content-Length: 4\r\nContent-Length: 40\r\n\r\nabcd",
    HEAD + b"Content-Length: +4\r\n\r\nabcd",
    HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Content-Length: 4, 4\r\n\r\nabcd",
    HEAD + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n",
    HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS,
    HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + CHUNKS,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 100_000 + b"\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 20_000,
    HEAD + b"X: a\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    HEAD + b"X: a\x00b\r\n\r\n",
    HEAD + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
    HEAD + b"A: b\r\n" * 20_000,
    HEAD + b"Content-Length: 100\r\n\r\n{",
    b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n",
    b"GET /v1/items HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET /v1/items HTTP/1.1\r\nHost: 127.0.0.1.evil.example:80\r\n\r\n",
    b"GET http://evil.example/v1/items HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/items HTTP/1.1\r\n\r\n",
    b"GET /v1/items HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n folded: b\r\n\r\n",
    b"GET /v1/items HTTP/0.9\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/items HTTP/1.1 \r\nHost: localhost\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\r\n\r\n" + SMUGGLED,
    HEAD + b"Sec-Fetch-Site: cross-site\r\nContent-Length: 2\r\n\r\n{}",
]


@schemathesis.serializer(NDJSON)
def lines_of(_: object, value: object) -> bytes:
    return as_json(value)


def attack(server: Attacked, requests: st.SearchStrategy[Any], count: int, seed: int) -> None:
    """Send drawn requests; an assertion fails with the first that is not answered as it should be."""

    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
    )
    @given(requests)
    @from_seed(seed)
    def send(request: Any) -> None:
        if isinstance(request, Request):
            server.send(request.wire(), request.method)
            return
        response = request.call(timeout=PATIENCE)  # schemathesis'
        server.check(
            response.status_code, [(name, value[0]) for name, value in response.headers.items()], response.content
        )
        server.statuses[response.status_code] += 1

    send()


def one_round(server: Attacked, scale: int, seed: int) -> None:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.running.port}/openapi.json")
    for operation in schema.get_all_operations():
        attack(server, operation.ok().as_strategy(), scale, seed)
    for requests, share in ((search, 5), (other_bodies, 3), (forms, 3), (images(), 5), (paths, 3), (browsing, 3)):
        attack(server, requests, scale * share, seed)
    for wire in WIRES:
        server.send(wire, shut=True)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.timeout(600)
def test_hostile_requests_are_answered_and_leave_no_trace(attacked: Attacked) -> None:
    before, scale, began = version(attacked.folder), 12 if IS_LONG else 4, time.monotonic()
    for data in bombs().values():
        attacked.send(Request("POST", "/v1/search", form([("image", data)]), FORM).wire(), "POST")
    one_round(attacked, scale, 0)
    memory = attacked.memory()
    for seed in range(1, ROUNDS + 1):
        one_round(attacked, scale, seed)
    grown = attacked.memory() - memory
    print(f"{attacked.statuses.total()} requests in {time.monotonic() - began:.0f} s: {dict(attacked.statuses)}")
    print(f"slowest {attacked.slowest:.1f} s; memory {memory / 2**20:.0f} MiB, {grown / 2**20:+.0f} MiB")
    assert attacked.statuses.total() > (2_000 if IS_LONG else 300)
    assert grown < GROWTH
    assert version(attacked.folder) == before
    assert attacked.running.ask("GET", "/v1/items")[1]["total"] == COUNT


def test_slow_and_cut_requests_hinder_nobody(attacked: Attacked) -> None:
    body = random.Random(0).randbytes(2**20)
    head = HEAD.replace(b"application/json", FORM.encode()) + b"Content-Length: %d\r\n\r\n" % (15 * 2**20)
    stalled = [socket.create_connection(("127.0.0.1", attacked.running.port)) for _ in range(30)]
    for one in stalled:
        one.sendall(head + form([("image", body)], b""))
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", attacked.running.port)) as cut:
            cut.sendall(head + body[:1_000])
    began = time.monotonic()
    assert attacked.running.ask("POST", "/v1/search", {"text": "a"})[0] == 200
    assert time.monotonic() - began < 5
    for one in stalled:
        one.close()


def test_the_log_has_neither_tracebacks_nor_the_key_nor_anything_that_breaks_its_lines(attacked: Attacked) -> None:
    log = attacked.running.stop()
    assert KEY not in log
    assert "Traceback" not in log
    assert all(json.loads(line) for line in log.splitlines() if line.startswith("{"))
