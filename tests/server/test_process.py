"""`mlcl serve` as a process: what clients do wrong, how it stops, several workers."""

import contextlib
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api import COUNT, KEY, encoded, indexed_shop
from command_line import Mlcl


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return indexed_shop(tmp_path_factory.mktemp("process"))


class Running:
    """A server in a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "mlcl_cli", "serve", "--port", str(self.port), *options]
        # Memory that was freed goes back to the system, as far as one arena allows.
        environment = os.environ | {"MLCL_API_KEY": KEY, "MALLOC_ARENA_MAX": "1"}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe that nobody reads would fill up
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=self._log, env=environment
        )

    def wait(self, patience: float = 90) -> None:
        until = time.monotonic() + patience
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", "/readyz")[0] == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(self.stop())

    def ask(self, method: str, path: str, body: object = None, timeout: float = 60) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            content = None if body is None else json.dumps(body).encode()
            connection.request(method, path, content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def stop(self) -> str:
        """End it and return its log."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if not self._log.closed:
            with self._log:
                self._log.seek(0)
                self._said = self._log.read().decode()
        return self._said


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    running = Running(folder)
    running.wait()
    yield running
    running.stop()


def test_connections_that_stall_or_break_hinder_nobody(server: Running) -> None:
    head = b"POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    stalled = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
    for number, one in enumerate(stalled):
        one.sendall((b"", b"POST /v1", head, head + b'{"text"')[number % 4])
    broken = socket.create_connection(("127.0.0.1", server.port))
    broken.sendall(head + b"{")
    broken.close()
    began = time.monotonic()
    assert server.ask("POST", "/v1/search", {"text": "a"})[0] == 200
    assert time.monotonic() - began < 5
    for junk in (b"\x16\x03\x01 tls?", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 1000, b"GET /" + b"a" * 100_000):
        with socket.create_connection(("127.0.0.1", server.port)) as one:
            with contextlib.suppress(OSError):
                one.sendall(junk)
            select.select([one], [], [], 5)
    assert server.ask("GET", "/readyz")[0] == 200
    for one in stalled:
        one.close()


def test_every_accepted_search_is_answered_when_the_server_stops(folder: Path) -> None:
    running = Running(folder)
    running.wait()
    answered, refused, started = [], [], threading.Event()

    def search(number: int) -> None:
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
            try:
                connection.connect()
            except OSError:
                refused.append(number)  # it does not listen any more
                return
            started.set()
            try:
                connection.request("POST", "/v1/search", json.dumps({"text": f"red {number}"}).encode(), JSON)
                response = connection.getresponse()
                answered.append((response.status, len(json.loads(response.read())["hits"])))
            except ConnectionError:
                refused.append(number)  # it was never accepted: the backlog of the socket
                return
            finally:
                connection.close()

    threads = [threading.Thread(target=search, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    assert started.wait(30)
    time.sleep(1)
    running.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    log = running.stop()
    assert running.process.returncode == 0, log
    assert events_in(log) == ["loading", "ready", "stopped"]
    assert len(refused) == 16
    assert len(answered) > 16
    assert set(answered) == {(200, 10)}
    counted = sum(line["status"] == 200 and line["route"] == "/v1/search" for line in requests_in(log))
    assert counted == len(answered)  # whatever the server took on, a client received


JSON = {"Content-Type": "application/json"}


def requests_in(log: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "request"]


def events_in(log: str) -> list[str]:
    """What the server says of itself. Without a terminal, every line is JSON after those of the profile."""
    lines = log.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("{"))
    assert all(line.startswith("· Profile: ") for line in lines[:first])
    return [line["event"] for line in map(json.loads, lines[first:]) if "address" in line]


def test_several_workers_answer_from_one_catalog(folder: Path) -> None:
    running = Running(folder, "--workers", "2")
    try:
        running.wait()
        found = {json.dumps(running.ask("POST", "/v1/search", {"item": "sku1"})[1]["hits"]) for _ in range(20)}
        assert len(found) == 1
        assert running.ask("GET", "/v1/items")[1]["total"] == COUNT
        until = time.monotonic() + 60
        while b'"ready"' not in os.pread(running._log.fileno(), 2**20, 0):  # once all workers are
            assert time.monotonic() < until
            time.sleep(0.1)
    finally:
        log = running.stop()
    assert "Traceback" not in log
    assert KEY not in log
    assert events_in(log) == ["loading", "ready", "stopped"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_every_call_of_the_guide_works(tmp_path: Path) -> None:
    folder = indexed_shop(tmp_path)
    (folder / "shoe.jpg").write_bytes((folder / "query.jpg").read_bytes())
    lines = [{"id": f"n{number}", "image": encoded(folder / "query.jpg")} for number in range(3)]
    (folder / "items.ndjson").write_text("\n".join(map(json.dumps, lines)))
    guide = (Path(__file__).parents[2] / ".github/GUIDE.md").read_text(encoding="utf-8")
    section = guide.split("### The API\n")[1].split("\n### ")[0]
    calls = re.findall(r"^    (curl (?:.*\\\n)*.*)$", section, re.MULTILINE)
    assert len(calls) == 9
    running = Running(folder)
    try:
        running.wait()
        for call in calls:
            command = call.replace("localhost:8000", f"127.0.0.1:{running.port}").replace("SKU-7", "sku7")
            command = command.replace("curl ", "curl --silent --show-error --fail-with-body --max-time 60 ", 1)
            done = subprocess.run(
                ["sh", "-c", command],
                cwd=folder,
                env=os.environ | {"MLCL_API_KEY": KEY},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, (call, done.stdout, done.stderr)
        assert (folder / "sku7.jpg").read_bytes().startswith(b"\xff\xd8")
        assert running.ask("GET", "/v1/items")[1]["total"] == COUNT + 3
    finally:
        running.stop()


def test_what_cannot_be_served_is_one_clear_line(folder: Path, tmp_path: Path, mlcl: Mlcl) -> None:
    outcome = mlcl("serve", "--host", "0.0.0.0", folder=folder)
    assert outcome.code == 2
    assert "must be at most 65535, not '99999'" in mlcl("serve", "--port", "99999", folder=folder).err
    assert "--host: listening on 0.0.0.0 needs a key in $MLCL_API_KEY" in outcome.err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = mlcl("serve", "--port", str(taken.getsockname()[1]), folder=folder)
        assert outcome.code == 4
        assert "cannot listen: Address already in use" in outcome.err
    profile = (folder / "mlcl.yaml").read_text().replace("clip.pt", str(folder / "clip.pt"))
    (tmp_path / "mlcl.yaml").write_text(profile)
    outcome = mlcl("serve", "--port", "0", folder=tmp_path)
    assert outcome.code == 3
    assert "there is no catalog yet. Run `mlcl index`" in outcome.err
