"""Visitors of the guestbook: each reads, writes or exports, one thing after another."""

from __future__ import annotations

import random
import threading
import time
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlencode

FORM = {"Content-Type": "application/x-www-form-urlencoded"}

# What a visitor does: the method, the path, the status, and how often.
ACTS = {
    "read": ("GET", "/", 200, 85),
    "write": ("POST", "/", 303, 12),
    "export": ("GET", "/entries.csv", 200, 1),
    "refused": ("POST", "/", 422, 2),
}


class Visitor(threading.Thread):
    """One of the visitors, and what he has seen."""

    def __init__(self, port: int, number: int, until: float) -> None:
        super().__init__()
        self.times: dict[str, list[float]] = {act: [] for act in ACTS}
        self.errors: list[str] = []
        self._port = port
        self._dice = random.Random(number)
        self._until = until

    def run(self) -> None:
        """Visit until the time is over."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        acts = list(ACTS)
        weights = [weight for *_, weight in ACTS.values()]
        while time.monotonic() < self._until:
            (act,) = self._dice.choices(acts, weights)
            method, path, expected, _ = ACTS[act]
            body = urlencode({"name": self.name, "text": act}) if act == "write" else ""
            started = time.perf_counter()
            try:
                connection.request(method, path, body, FORM)
                response = connection.getresponse()
                response.read()
            except (OSError, HTTPException) as error:
                self.errors.append(f"{act}: {error!r}")
                connection.close()
                continue
            self.times[act].append(time.perf_counter() - started)
            if response.status != expected:
                self.errors.append(f"{act}: {response.status} {response.reason}")
        connection.close()
