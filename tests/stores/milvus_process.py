"""A Milvus server in a folder, from PyPI's package `milvus`."""

import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest


# Milliseconds between a server's looks at what is to be done; by default, each read and each new table waits for them.
IMPATIENT = {"timeTickInterval: 200": 20, "checkInterval: 1000": 50, "distPullInterval: 500": 50}


class MilvusProcess:
    """A server that can be killed and started again; its rows stay in the folder.

    An `impatient` one spends more on looking for work, and waits less for it: right for tests, not for measurements.
    """

    def __init__(self, folder: Path, *, impatient: bool = True) -> None:
        milvus = pytest.importorskip("milvus", reason="PyPI's milvus has no server for this machine")
        config = milvus.MilvusServerConfig(data_dir=str(folder))
        for setting, interval in IMPATIENT.items() if impatient else ():
            assert setting in config.template_text
            config.template_text = config.template_text.replace(setting, f"{setting.split(':')[0]}: {interval}")
        self._server = milvus.MilvusServer(config, wait_for_started=False)

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
