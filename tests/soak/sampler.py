"""Whether the server agrees: its sessions, counted every few milliseconds.

A session counts while neither side was told to end it. An administrator's victims and
the connections that are closed are noted beforehand; of what was cut off without a
farewell the kernel knows that the client has hung up.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import psycopg

EVERY = 0.005

ESTABLISHED = "01"
"""State of a connection of which neither end has hung up (net/tcp_states.h)."""

QUERY = """
    select pid, application_name, client_port from pg_stat_activity
    where application_name like 'soak-%' and pid <> pg_backend_pid()
"""


def connected_ports(server_port):
    """Give the ports of clients that have not hung up, as the server's end knows."""
    ports = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if state == ESTABLISHED and int(local.rpartition(":")[2], 16) == server_port:
            ports.add(int(remote.rpartition(":")[2], 16))
    return ports


class Sampler:
    """A thread that samples; with a connection of its own.

    Args:
        server: whose sessions.
        most: how many there may be of one application_name.
        report: takes the evidence of a violation.

    Attributes:
        told: the server processes that were told to end.
        samples: how often the sessions were counted.
        peaks: how many there were at most, by application_name.
        now: how many there were in the latest sample.
    """

    def __init__(self, server, most, report):
        self.told = set()
        self.samples = 0
        self.peaks = Counter()
        self.now = Counter()
        self._server = server
        self._most = most
        self._report = report
        self._resting = threading.Event()
        self._may_go_on = threading.Event()
        self._may_go_on.set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def pause(self):
        """Do not look until `go_on`: all sessions are about to end."""
        self._resting.clear()
        self._may_go_on.clear()
        self._resting.wait()

    def go_on(self):
        self.told.clear()
        self._may_go_on.set()

    def stop(self):
        self._stop.set()
        self._may_go_on.set()
        self._thread.join()

    def _run(self):
        while not self._stop.is_set():
            self._may_go_on.wait()
            conninfo = self._server.conninfo_for(application_name="sampler")
            try:
                with psycopg.connect(conninfo, autocommit=True) as conn:
                    self._sample_often(conn)
            except psycopg.OperationalError:
                self._stop.wait(EVERY)  # it is down, or full
            self._resting.set()

    def _sample_often(self, conn):
        moment = time.monotonic()
        while self._may_go_on.is_set() and not self._stop.is_set():
            self._sample(conn)
            moment = max(moment + EVERY, time.monotonic())
            self._stop.wait(moment - time.monotonic())

    def _sample(self, conn):
        # `told` is read afterwards, so whoever was told in between is in it.
        sessions = [s for s in conn.execute(QUERY).fetchall() if s[0] not in self.told]
        counts = Counter(name for _, name, _ in sessions)
        if max(counts.values(), default=0) > self._most:
            # Those who are connected now were so in the moment of the query.
            ports = connected_ports(self._server.port)
            sessions = [s for s in sessions if s[2] in ports and s[0] not in self.told]
            counts = Counter(name for _, name, _ in sessions)
        for name, count in counts.items():
            self.peaks[name] = max(self.peaks[name], count)
            if count > self._most:
                self._report(f"{count} sessions of {name}, not {self._most}", sessions)
        self.now = counts
        self.samples += 1
