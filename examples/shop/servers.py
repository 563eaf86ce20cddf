"""The three shops, each under the server that it would have in production."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from typing_extensions import Self

HERE = Path(__file__).parent
WORKERS = 2
THREADS = 8
PATIENCE = 30.0  # seconds for a server to start, and to stop

GUNICORN = [
    *("gunicorn", "--preload", "--bind", "127.0.0.1:{port}", "--log-level", "warning"),
    *("--workers", str(WORKERS), "--threads", str(THREADS)),
]
UVICORN = [
    *("uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning"),
    *("--workers", str(WORKERS)),
]

COMMANDS = {
    "flask": [*GUNICORN, "flask_shop:app"],
    "django": [*GUNICORN, "django_shop:application"],
    "fastapi": [*UVICORN, "fastapi_shop:app"],
}


class Shop:
    """A shop that is open during a `with` block.

    Attributes:
        url: where it is.
    """

    def __init__(self, framework: str, **environment: str) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [part.format(port=port) for part in COMMANDS[framework]]
        # What `EDGEPOOL_...` variables say here is not meant for the shop.
        here = {k: v for k, v in os.environ.items() if not k.startswith("EDGEPOOL_")}
        self._environment = {**here, **environment}
        self._port = port

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *self._command], cwd=HERE, env=self._environment
        )
        try:
            self._wait_until_open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait_until_open(self) -> None:
        give_up_at = time.monotonic() + PATIENCE
        while True:
            asking = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
            try:
                asking.request("GET", "/products")
                if asking.getresponse().status == http.client.OK:
                    return
            except OSError:
                pass
            finally:
                asking.close()
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError(f"the shop does not open: {self._command}")
            time.sleep(0.05)

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
