"""Never more sessions than `max_size`; and what the gauges say is true."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from weakref import WeakSet

import psycopg

from support.parity import entered, eventually, execute, pause, result, spawn

MOST = 8
SECONDS = 2.5
WORKERS = 12


def witness_of(colour):
    """Make a connection class that keeps count of its sessions, and of their ends.

    `open` is how many there are from before the connect to after the close. `told` has
    the server processes that were told to end: they take a moment to do it.
    """

    class Witness(colour.Connection):
        lock = threading.Lock()
        open = peak = 0

        @classmethod
        def count(cls, step):
            with cls.lock:
                cls.open += step
                cls.peak = max(cls.peak, cls.open)

        def tell(self):
            with suppress(psycopg.Error):
                told.add(self.pgconn.backend_pid)

        def gone(self):
            # Each session once: several objects may have stood for it.
            if self.pgconn not in ended:
                ended.add(self.pgconn)
                self.count(-1)

    Witness.told = told = set()
    ended = WeakSet()
    if colour.asynchronous:

        async def connect(cls, conninfo="", **kwargs):
            cls.count(+1)
            try:
                return await super(Witness, cls).connect(conninfo, **kwargs)
            except BaseException:
                cls.count(-1)
                raise

        async def close(self):
            self.tell()
            await super(Witness, self).close()
            self.gone()

    else:

        def connect(cls, conninfo="", **kwargs):
            cls.count(+1)
            try:
                return super(Witness, cls).connect(conninfo, **kwargs)
            except BaseException:
                cls.count(-1)
                raise

        def close(self):
            self.tell()
            super(Witness, self).close()
            self.gone()

    Witness.connect = classmethod(connect)
    Witness.close = close
    return Witness


class Sampler:
    """Counts a test's sessions on the server every few milliseconds, in a thread."""

    def __init__(self, server, sessions, told):
        self._server = server
        self._sessions = sessions
        self._told = told
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.samples = 0
        self.peak = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stop.set()
        self._thread.join()

    def _run(self):
        conninfo = self._server.conninfo_for(application_name="sampler")
        with psycopg.connect(conninfo, autocommit=True) as conn:
            sessions = type(self._sessions)(conn, self._sessions.name)
            while not self._stop.wait(0.003):
                # `told` is read afterwards, so whoever left in between is in it.
                alive = set(sessions.pids)
                self.peak = max(self.peak, len(alive - self._told))
                self.samples += 1


class Crowd:
    """Borrowers of all kinds, and an administrator who interferes."""

    def __init__(self, pool, sessions, told, chance):
        self.pool = pool
        self.sessions = sessions
        self.told = told
        self.chance = chance
        self.stopped = False
        self.served = 0
        self.broken = 0

    async def borrow(self, seed):
        chance = random.Random(seed)
        ways = [self.use, self.use, self.use, self.soil, self.close, self.hold]
        while not self.stopped:
            try:
                await chance.choice(ways)()
            except psycopg.OperationalError:
                self.broken += 1  # the administrator's doing
            self.served += 1

    async def use(self):
        async with entered(self.pool.connection()) as conn:
            await execute(conn, "select 1")

    async def soil(self):
        conn = await result(self.pool.getconn())
        try:
            await execute(conn, "select 1")
        finally:
            await result(self.pool.putconn(conn))

    async def close(self):
        async with entered(self.pool.connection()) as conn:
            await result(conn.close())

    async def hold(self):
        async with entered(self.pool.connection()):
            await pause(0.005)

    async def interfere(self):
        while not self.stopped:
            await pause(0.02)
            await self.chance.choice([self.kill, self.kill, self.drain, self.resize])()

    async def kill(self):
        pids = self.sessions.pids
        for pid in self.chance.sample(pids, len(pids) // 2):
            self.told.add(pid)
            self.sessions.end(pid)

    async def drain(self):
        await result(self.pool.drain())

    async def resize(self):
        sizes = self.chance.randint(0, 3), self.chance.randint(3, MOST)
        await result(self.pool.resize(*sizes))


async def test_never_more_sessions_than_max_size(colour, server, conninfo, sessions):
    seed = time.time_ns()
    print(f"seed {seed}")
    witness = witness_of(colour)
    async with colour.pool(
        conninfo,
        min_size=2,
        max_size=MOST,
        connection_class=witness,
        max_lifetime=0.3,
        max_idle=0.05,
        check_after=0.1,
    ) as pool:
        crowd = Crowd(pool, sessions, witness.told, random.Random(seed))
        with Sampler(server, sessions, witness.told) as sampler:
            people = [spawn(crowd.borrow, seed + n) for n in range(WORKERS)]
            people.append(spawn(crowd.interfere))
            try:
                until = time.monotonic() + SECONDS
                while time.monotonic() < until:
                    s = pool.statistics()

                    assert s.in_use >= 0
                    away = s.opening + s.closing + s.checking + s.resetting
                    assert MOST >= s.size == s.in_use + s.idle + away

                    await pause(0.01)
            finally:
                crowd.stopped = True
                for person in people:
                    await person

        assert sampler.peak <= MOST
        assert witness.peak <= MOST
        # Otherwise nothing was tried.
        assert crowd.served > 100
        assert crowd.broken > 0
        assert sampler.samples > 20
        assert sampler.peak >= 4

        # Left alone, the pool shrinks, and says what is true.
        await result(pool.resize(3, 5))
        pool.max_lifetime = 3600
        await result(pool.drain())

        def at_rest():
            stats = pool.get_stats()
            gauges = stats["pool_size"], stats["pool_available"]
            return gauges == (3, 3) and sessions.count == 3

        await eventually(at_rest)

        assert witness.open == 3
        assert pool.statistics().in_use == 0

    assert witness.open == 0

    await eventually(lambda: sessions.count == 0)


async def test_the_gauges_are_true_at_every_step(colour, conninfo, sessions):
    async with colour.pool(conninfo, min_size=1, max_size=4) as pool:

        def gauges():
            s = pool.statistics()
            return s.size, s.in_use, s.idle, s.waiting

        await eventually(lambda: gauges() == (1, 0, 1, 0))
        held = [await result(pool.getconn()) for _ in range(4)]

        assert (4, 4, 0, 0) == gauges()
        assert sessions.count == 4

        waiting = spawn(pool.getconn)
        await eventually(lambda: gauges() == (4, 4, 0, 1))
        await result(pool.putconn(held.pop()))
        held.append(await waiting)

        assert (4, 4, 0, 0) == gauges()

        for conn in held:
            await result(pool.putconn(conn))

        assert (4, 0, 4, 0) == gauges()

        await result(pool.resize(1, 2))
        await eventually(lambda: gauges() == (2, 0, 2, 0))
        await eventually(lambda: sessions.count == 2)

    assert (0, 0, 0, 0) == gauges()
