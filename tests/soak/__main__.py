"""Let a pool of threads and a pool of tasks live through everything, for minutes.

    PYTHONPATH=tests python -m soak [--minutes N] [--seed S] [--without ACT ...]

Borrowers do all that borrowers do; sessions are terminated, the server is restarted and
killed, pools are drained, resized, closed and opened, borrowers interrupted, children
forked. Meanwhile the server's sessions are counted every 5 ms. After each storm there
is a calm in which nothing may be lost. The seed decides what is done in which order;
when it happens is up to the machine. Ends with a table, and with status 1 and the
evidence if anything was violated.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import sys
import threading
import time
from collections import Counter
from random import SystemRandom

import psycopg
from soak.acts import DECK, Acts
from soak.sampler import Sampler
from soak.sides import MOST, TaskSide, ThreadSide

from edgepool.testing import PostgresServer

STORM = 5.0
PAUSE = 0.03

# Whatever hangs for longer than this, in seconds, ends it all, and shows where.
HANGS = 90.0


class Evidence:
    """What was violated; the first few, and not twice the same."""

    def __init__(self):
        self._lock = threading.Lock()
        self.found = {}

    def __call__(self, what, evidence):
        with self._lock:
            if len(self.found) < 10:
                self.found.setdefault(what, evidence)


class Soak:
    """A server, two pools, and all that happens to them."""

    def __init__(self, server, seed, without):
        self.report = Evidence()
        self.storms = 0
        self.sampler = Sampler(server, MOST, self.report)
        arguments = (server, self.sampler.told, self.report, seed)
        self.sides = [ThreadSide(*arguments), TaskSide(*arguments)]
        self.acts = Acts(server, self.sampler, self.sides, self.report, seed, without)
        self._started = time.monotonic()

    def run(self, seconds):
        """Let storms and calms follow one another."""
        storm = min(STORM, seconds / 2)
        until = self._started + seconds
        while time.monotonic() < until and not self.report.found:
            self._storm(storm)
            self._calm()
            self.storms += 1
        for side in self.sides:
            side.stop()
        self.sampler.stop()

    def _storm(self, seconds):
        for side in self.sides:
            side.calm = False
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            faulthandler.dump_traceback_later(HANGS, exit=True)
            self.acts.next()
            self._show_progress()
            time.sleep(PAUSE)

    def _calm(self):
        for side in self.sides:
            side.calm = True
        for side in self.sides:
            try:
                side.do(side.be_conserved())
            except AssertionError as error:
                self.report(
                    f"not conserved: {side.name}", f"{error}\n{side.pool.statistics()}"
                )

    def _show_progress(self):
        if sys.stdout.isatty():
            print(f"\r{self._progress()}\x1b[K", end="", flush=True)

    def _progress(self):
        sides = "; ".join(
            f"{side.kind} {side.served():,} served,"
            f" {self.sampler.now[side.name]} of {MOST} sessions"
            for side in self.sides
        )
        elapsed = time.monotonic() - self._started
        return f"{elapsed:4.0f} s, storm {self.storms + 1}: {sides}"

    def table(self):
        """Give what happened, for people."""
        lines = [f"{'':24}{'threads':>12}{'tasks':>12}"]
        words = ["served", "interrupted", "PoolTimeout", "PoolClosed"]
        counts = [sum((b.counts for b in s.borrowers), Counter()) for s in self.sides]
        words += sorted({word for count in counts for word in count} - set(words))
        for word in words:
            figures = "".join(f"{count[word]:12,}" for count in counts)
            lines.append(f"{word:24}{figures}")
        peaks = "".join(f"{self.sampler.peaks[side.name]:12}" for side in self.sides)
        lines.append(f"{f'sessions, of {MOST}':24}{peaks}")
        lines.append("")
        lines.append(f"sessions were counted {self.sampler.samples:,} times")
        lines += [f"{act} {count:,}" for act, count in self.acts.counts.items()]
        return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="python -m soak")
    parser.add_argument("--minutes", type=float, default=5.0, help="for how long")
    parser.add_argument("--seed", type=int, help="of all choices; default: another one")
    parser.add_argument(
        "--without", action="append", default=[], choices=DECK, help="leave an act out"
    )
    options = parser.parse_args()
    seed = options.seed
    if seed is None:
        seed = SystemRandom().randrange(10**6)
    print(f"seed {seed}, {options.minutes:g} minutes", flush=True)

    # Everything goes wrong here, and is logged: that is not what one wants to read.
    logging.getLogger().addHandler(logging.NullHandler())
    with PostgresServer(settings={"max_connections": 100}) as server:
        with psycopg.connect(server.conninfo) as conn:
            conn.execute("create table asked (who text)")
        soak = Soak(server, seed, options.without)
        soak.run(options.minutes * 60)
    faulthandler.cancel_dump_traceback_later()

    print(f"\n{soak.table()}\n")
    for what, evidence in soak.report.found.items():
        print(f"VIOLATED: {what}\n{evidence}\n")
    if not soak.report.found:
        print(f"nothing was violated in {soak.storms} storms")
    sys.exit(bool(soak.report.found))


if __name__ == "__main__":
    main()
