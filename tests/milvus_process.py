"""A Milvus server in a folder, from PyPI's package `milvus`."""

import os
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

# `make milvus` sets it to 1; the address of a server does, too, which is then used.
MILVUS = os.environ.get("MLCL_MILVUS", "")

# Milliseconds between a server's looks at what is to be done; by default, each read and each new table waits for them.
IMPATIENT = {"timeTickInterval: 200": 20, "checkInterval: 1000": 50, "distPullInterval: 500": 50}
# Servers beside each other would take each other's ports otherwise.
ETCD = """\
listen-client-urls: {client}
advertise-client-urls: {client}
listen-peer-urls: {peer}
initial-advertise-peer-urls: {peer}
initial-cluster: default={peer}
"""


class MilvusProcess:
    """A server that can be killed and started again; its rows stay in the folder.

    An `impatient` one spends more on looking for work, and waits less for it: right for tests, not for measurements.
    """

    def __init__(self, folder: Path, *, impatient: bool = True) -> None:
        milvus = pytest.importorskip("milvus", reason="PyPI's milvus has no server for this machine")
        config = milvus.MilvusServerConfig(data_dir=str(folder / "data"))
        etcd = folder / "etcd.yaml"
        client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
        etcd.write_text(ETCD.format(client=client, peer=peer))
        changes = {"\netcd:\n": f"\netcd:\n  config:\n    path: {etcd}\n"}
        if impatient:
            changes |= {
                setting: f"{setting.split(':')[0]}: {milliseconds}" for setting, milliseconds in IMPATIENT.items()
            }
        for before, after in changes.items():
            assert before in config.template_text
            config.template_text = config.template_text.replace(before, after)
        self._server = milvus.MilvusServer(config, wait_for_started=False)
        ports = [name for name in config.configurable_items if name.endswith("_port")]
        self._server.webservice_port, *others = free_ports(1 + len(ports))
        for name, port in zip(ports, others, strict=True):
            config.set(name, port)

    @property
    def address(self) -> str:
        return f"milvus://127.0.0.1:{self._server.listen_port}"

    def start(self, patience: float = 120) -> None:
        """Start it on free ports, and wait until it answers. Skips the test if it cannot run here."""
        try:
            self._server.start()
        except OSError as error:
            pytest.skip(f"the Milvus server does not start here: {error}")
        until = time.monotonic() + patience
        while not self._is_healthy():
            if self._server.server_proc.poll() is not None or time.monotonic() > until:
                self.stop()
                pytest.skip("the Milvus server does not start here")
            time.sleep(0.1)

    def kill(self) -> None:
        """As a power cut would, but for what the system still has to write."""
        self._server.server_proc.kill()
        self._server.server_proc.wait()
        self._server.stop()

    def stop(self) -> None:
        """Stop it, whatever state it is in."""
        self._server.stop()

    def _is_healthy(self) -> bool:
        health = f"http://127.0.0.1:{self._server.webservice_port}/healthz"
        try:
            with urllib.request.urlopen(health, timeout=5) as answer:
                return b"OK" in answer.read()
        except (OSError, urllib.error.URLError):
            return False


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
