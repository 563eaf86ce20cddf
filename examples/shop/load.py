"""A small load generator: customers who look, order, and look again.

    python load.py http://127.0.0.1:8000 --customers 16 --seconds 5

Each customer is a thread with a connection of its own, as a browser has.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 30.0  # seconds; a customer who waits longer is gone


@dataclass
class Report:
    """What the customers have seen."""

    seconds: float = 0.0
    # How often each answer came to each kind of request.
    answers: Counter[tuple[str, int | str]] = field(default_factory=Counter)
    # How long each request took, in seconds.
    times: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Return the time within which this share of the requests were answered."""
        times = sorted(self.times)
        return times[int(share * (len(times) - 1))] if times else 0.0

    def unexpected(self) -> dict[tuple[str, int | str], int]:
        """Return the answers that a shop must not give."""
        fine = {200, 201, 409}  # 409: sold out
        return {what: n for what, n in self.answers.items() if what[1] not in fine}


class Customer:
    """One browser."""

    def __init__(self, url: str, report: Report, seed: int) -> None:
        parts = urlsplit(url)
        self._http = http.client.HTTPConnection(
            parts.hostname or "127.0.0.1", parts.port, timeout=PATIENCE
        )
        self._report = report
        self._random = random.Random(seed)

    def visit(self) -> None:
        """Look at the products, order one, look at the order; rarely, at all orders."""
        products = self._request("look", "GET", "/products")
        if not products:
            return
        wanted = {
            "product": self._random.choice(products)["id"],
            "quantity": self._random.randint(1, 3),
        }
        order = self._request("order", "POST", "/orders", wanted)
        if order and "id" in order:
            self._request("look again", "GET", f"/orders/{order['id']}")
        if self._random.random() < 0.02:
            self._request("export", "GET", "/orders.csv")

    def _request(self, kind: str, method: str, path: str, body: object = None) -> Any:
        started = time.perf_counter()
        answer: Any = None
        status: int | str
        try:
            self._http.request(
                method,
                path,
                body=None if body is None else json.dumps(body),
                headers={"Content-Type": "application/json"},
            )
            response = self._http.getresponse()
            content = response.read()
            status = response.status
            if "json" in (response.getheader("Content-Type") or ""):
                answer = json.loads(content)
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            status = type(error).__name__
        # Both are safe to do from many threads.
        self._report.times.append(time.perf_counter() - started)
        with _counting:
            self._report.answers[kind, status] += 1
        return answer

    def leave(self) -> None:
        """Close the browser."""
        self._http.close()


_counting = threading.Lock()


def load(url: str, customers: int, seconds: float) -> Report:
    """Have so many customers visit the shop at this address, for so long."""
    report = Report()
    over = time.perf_counter() + seconds

    def stay(seed: int) -> None:
        customer = Customer(url, report, seed)
        while time.perf_counter() < over:
            customer.visit()
        customer.leave()

    started = time.perf_counter()
    threads = [threading.Thread(target=stay, args=[n]) for n in range(customers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.seconds = time.perf_counter() - started
    return report


def main() -> None:
    """Visit any shop, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--customers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    report = load(options.url, options.customers, options.seconds)
    for (kind, status), number in sorted(report.answers.items(), key=str):
        print(f"{kind:<12}{status:>6}{number:>8}")
    print(f"{len(report.times) / report.seconds:.0f} requests/s")


if __name__ == "__main__":
    main()
