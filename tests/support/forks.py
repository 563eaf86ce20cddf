"""Forks for tests: a child that runs a coroutine function and sends back what it gave.

For fork in the process that runs the tests. A child of that must end by `os._exit`: to
return would be to run the rest of the tests twice. How else a child may end is tried
out in `faults/programs`.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
import traceback
import warnings

from support.parity import PATIENCE, entered, execute, result, spawn
from support.pg import beside

# In a child for good.
DONE, FAILED = b"D", b"F"


def fork():
    """Fork, though there are threads: that it just works is what is tested."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*multi-threaded.*fork", DeprecationWarning)
        return os.fork()


class Child:
    """A child process that runs a coroutine function.

    Args:
        colour: in which way to run it.
        function: may raise; gives something to be pickled.
        fork: another way to fork than Python's.
    """

    def __init__(self, colour, function, *arguments, fork=fork):
        reading, writing = os.pipe()
        self.pid = fork()
        if self.pid:
            os.close(writing)
            self._pipe = reading
            return
        try:
            os.close(reading)
            answer = DONE + pickle.dumps(colour.run(function(*arguments)))
        except BaseException:
            answer = FAILED + traceback.format_exc().encode()
        finally:
            os.write(writing, answer)
            os._exit(0)

    def _read(self):
        deadline = time.monotonic() + 2 * PATIENCE
        answer = b""
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            if not select.select([self._pipe], [], [], left)[0]:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"the child {self.pid} hangs")
            if not (part := os.read(self._pipe, 65536)):
                break
            answer += part
        os.close(self._pipe)
        os.waitpid(self.pid, 0)
        if not answer.startswith(DONE):
            raise AssertionError(f"in the child:\n{answer[1:].decode()}")
        return pickle.loads(answer[1:])

    async def outcome(self):
        """Wait for its end; give what its function gave."""
        return await beside(self._read)


class Storm:
    """What many queries at the same time came to, each of which asks for a number."""

    def __init__(self):
        self.answered = 0
        self.wrong = []
        self.errors = []
        self.pids = set()

    def summary(self):
        return self.answered, self.wrong, self.errors


async def storm(pool, queries=1500, clients=10):
    """Ask for numbers that no other process asks for; see who gets what."""
    seen = Storm()
    mine = os.getpid() * 1_000_000
    numbers = iter(range(mine, mine + queries))

    async def client():
        for number in numbers:
            try:
                async with entered(pool.connection()) as conn:
                    query = "select %s::bigint, pg_backend_pid()"
                    row = await result(
                        (await execute(conn, query, [number])).fetchone()
                    )
            except Exception as error:
                seen.errors.append(repr(error))
                continue
            seen.answered += 1
            seen.pids.add(row[1])
            if row[0] != number:
                seen.wrong.append((number, row[0]))

    for each in [spawn(client) for _ in range(clients)]:
        await each
    return seen
