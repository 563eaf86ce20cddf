"""Tells when a server accepts connections: ``python -m benchmarks.prober CONNINFO``.

A process of its own, so that looking does not take the interpreter lock from the pools
that are measured. Prints ``time.monotonic()``, which all processes of a machine share.
"""

from __future__ import annotations

import sys
import time

from psycopg import pq

INTERVAL = 0.002


def main() -> None:
    """Ask until the server says yes, or for a minute."""
    conninfo = sys.argv[1].encode()
    print("looking", flush=True)

    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        if pq.PGconn.ping(conninfo) == pq.Ping.OK:
            print(time.monotonic(), flush=True)
            return
        time.sleep(INTERVAL)


if __name__ == "__main__":
    main()
