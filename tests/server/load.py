"""Loads a server with locust's clients, with and without batches, and prints a table.

`make load` runs it: python tests/server/load.py DEMO [--seconds N] [--soak MINUTES]. DEMO is the folder that
`mlcl demo` wrote; its shoes are indexed, and clients send a picture and words. With --soak, eight clients search for so
long, a search a second each, while another one changes the catalog twice a second, and the server's memory is watched.
"""

import argparse
import base64
import csv
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

KEY = "a key of the load test"
WORDS = ("in red", "with a bow", "in black with a flat heel", "with a blue sole", "like this, but higher")
CLIENTS = (1, 8, 64)
SERVERS = {
    "batches": (),
    "one at a time": ("--max-batch", "1"),
    "two workers": ("--workers", "2"),
}


@dataclass(frozen=True)
class Figures:
    """What clients saw: requests a second, milliseconds, failed requests."""

    rate: float
    p50: float
    p99: float
    failed: int


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[int, psutil.Process]]:
    """A server on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlcl_cli", "serve", "-p", "mlcl.shoes.yaml", "--port", str(port), *options]
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=os.environ | {"MLCL_API_KEY": KEY})
        try:
            until = time.monotonic() + 120
            while not _is_ready(port):
                assert process.poll() is None, (folder / "serve.log").read_text()
                assert time.monotonic() < until
                time.sleep(0.2)
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(60)


def _is_ready(port: int) -> bool:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def write_requests(folder: Path, path: Path) -> None:
    """Searches, with pictures of the demo's validation shoes."""
    draw = random.Random(0)
    pictures = draw.sample(sorted((folder / "data/shoes/images").rglob("*.jpg")), 50)
    bodies = [
        {"image": base64.b64encode(one.read_bytes()).decode(), "text": draw.choice(WORDS), "k": 10} for one in pictures
    ]
    path.write_text(json.dumps(bodies))


def load(port: int, clients: int, seconds: int, requests: Path) -> Figures:
    """What `clients` clients see who each send the next search when the last one was answered."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("clients.py")), "--headless"),
            *("-u", str(clients), "-r", str(clients), "-t", f"{seconds}s", "-H", f"http://127.0.0.1:{port}"),
            *("--csv", f"{folder}/run", "--only-summary", "--reset-stats", "--exit-code-on-error", "0"),
        ]
        environment = os.environ | {"REQUESTS": str(requests), "SEED": str(clients)}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        with Path(folder, "run_stats.csv").open() as file:
            (row,) = (row for row in csv.DictReader(file) if row["Name"] == "Aggregated")
    return Figures(float(row["Requests/s"]), float(row["50%"]), float(row["99%"]), int(row["Failure Count"]))


def direct(folder: Path, requests: Path) -> float:
    """The median milliseconds of encoding and searching for the same queries without a server."""
    import io

    from PIL import Image

    from mlcl_cli import Retriever

    retriever, times = Retriever.load(folder / "mlcl.shoes.yaml"), []
    for body in 4 * json.loads(requests.read_text()):
        began = time.perf_counter()
        image = Image.open(io.BytesIO(base64.b64decode(body["image"])))
        retriever.search(body["text"], image=image, k=10)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times[50:])


def soak(folder: Path, requests: Path, minutes: float) -> None:
    """Searches and changes for a long time; prints the server's memory by the minute."""
    import http.client

    with serving(folder) as (port, server):
        environment = os.environ | {"REQUESTS": str(requests), "SEED": "0", "PAUSE": "1"}
        command = [
            *(sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("clients.py")), "--headless"),
            *("-u", "8", "-r", "8", "-t", f"{int(minutes * 60)}s", "-H", f"http://127.0.0.1:{port}", "--only-summary"),
        ]
        clients = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        picture = json.loads(requests.read_text())[0]["image"]
        began, noted, changes, failed = time.monotonic(), -1, 0, 0
        while clients.poll() is None:
            name = f"/v1/items/soak-{changes % 50}"
            method = "DELETE" if changes % 150 > 100 else "PUT"
            body = json.dumps({"image": picture, "fields": {"color": f"c{changes}"}}).encode()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
            connection.request(method, name, None if method == "DELETE" else body, headers)
            failed += connection.getresponse().status not in (200, 204, 404)
            connection.close()
            changes += 1
            if (minute := int((time.monotonic() - began) / 60)) > noted:
                noted = minute
                print(f"minute {minute}: {server.memory_info().rss / 2**20:.0f} MiB, {changes} changes", flush=True)
            time.sleep(0.5)
        output = clients.communicate()[0].decode()
        print("\n".join(line for line in output.splitlines() if "Aggregated" in line)[:400])
        print(f"{changes} changes, {failed} failed; clients ended with {clients.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("demo", type=Path)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--soak", type=float, default=0)
    options = parser.parse_args()
    folder = options.demo.resolve()
    index = [sys.executable, "-m", "mlcl_cli", "index", "data/shoes/products.csv", "-p", "mlcl.shoes.yaml", "-q"]
    subprocess.run(index, cwd=folder, check=True)
    requests = folder / "requests.json"
    write_requests(folder, requests)
    if options.soak:
        soak(folder, requests, options.soak)
        return
    print(f"encode + search without a server: {direct(folder, requests):.1f} ms at the median\n")
    print("| server | clients | requests/s | p50, ms | p99, ms | failed |\n|---|---|---|---|---|---|")
    for name, chosen in SERVERS.items():
        with serving(folder, *chosen) as (port, _):
            load(port, 8, 3, requests)
            for clients in CLIENTS:
                seen = load(port, clients, options.seconds, requests)
                print(
                    f"| {name} | {clients} | {seen.rate:.0f} | {seen.p50:.0f} | {seen.p99:.0f} | {seen.failed} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
