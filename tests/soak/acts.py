"""What happens to pools, to their borrowers and to the server, one thing at a time."""

from __future__ import annotations

import gc
import os
import select
import signal
import traceback
from collections import Counter
from contextlib import suppress
from random import Random

import psycopg
from soak.sides import MOST

from support.parity import entered, fetch, result

# How many of each are in a deck; every deck is played to its end, in another order.
DECK = {
    "cancel": 10,
    "interrupt": 10,
    "forget": 5,
    "terminate_some": 5,
    "terminate_all": 2,
    "drain": 3,
    "resize": 3,
    "check": 2,
    "reopen": 1,
    "fork": 4,
    "restart": 1,
    "crash": 1,
}

# What a forked child may take to borrow and to end, in seconds.
CHILD_PATIENCE = 15.0


class Acts:
    """Plays the deck.

    Args:
        server: the server.
        sampler: who counts its sessions.
        sides: the pools.
        report: takes the evidence of a violation.
        seed: what the choices are drawn from.
        without: what is not to happen.
    """

    def __init__(self, server, sampler, sides, report, seed, without):
        self.counts = Counter()
        self._server = server
        self._sampler = sampler
        self._sides = sides
        self._report = report
        self._chance = Random(f"{seed} acts")
        self._all = [a for a, n in DECK.items() for _ in range(n) if a not in without]
        self._deck = []

    def next(self):
        """Let the next thing happen."""
        if not self._deck:
            self._deck = self._chance.sample(self._all, len(self._all))
        act = self._deck.pop()
        getattr(self, f"_{act}")(self._chance.choice(self._sides))
        self.counts[act] += 1

    # --- to borrowers and pools ---------------------------------------------------

    def _cancel(self, side):
        self._disturb(self._side("tasks"))

    def _interrupt(self, side):
        self._disturb(self._side("threads"))

    def _disturb(self, side):
        side.interrupt(self._chance.randrange(len(side.borrowers)))

    def _side(self, kind):
        (side,) = [side for side in self._sides if side.kind == kind]
        return side

    def _forget(self, side):
        async def forget():
            # Dropped: to be found by the next calm.
            with suppress(psycopg.Error):
                await fetch(await result(side.pool.getconn()), "select 1")

        side.do(forget())

    def _drain(self, side):
        async def drain():
            await result(side.pool.drain())

        side.do(drain())

    def _resize(self, side):
        sizes = self._chance.randint(0, 3), self._chance.randint(3, MOST)

        async def resize():
            await result(side.pool.resize(*sizes))

        side.do(resize())

    def _check(self, side):
        async def check():
            await result(side.pool.check())

        side.do(check())

    def _reopen(self, side):
        patience = self._chance.choice([0.0, 0.02, 2.0])

        async def reopen():
            await result(side.pool.close(timeout=patience))
            await result(side.pool.open())

        side.do(reopen())

    # --- to the server ------------------------------------------------------------

    def _terminate_some(self, side):
        self._terminate(side, self._chance.random())

    def _terminate_all(self, side):
        self._terminate(side, 1.0)

    def _terminate(self, side, share):
        query = "select pid from pg_stat_activity where application_name = %s"
        try:
            with self._admin() as admin:
                pids = [pid for (pid,) in admin.execute(query, [side.name])]
                for pid in self._chance.sample(pids, round(len(pids) * share)):
                    self._sampler.told.add(pid)
                    admin.execute("select pg_terminate_backend(%s)", [pid])
        except psycopg.OperationalError as error:
            self._report("the administrator cannot connect", error)

    def _admin(self):
        conninfo = self._server.conninfo_for(application_name="admin")
        return psycopg.connect(conninfo, autocommit=True)

    def _restart(self, side):
        self._be_away(self._server.stop)

    def _crash(self, side):
        self._be_away(self._server.kill)

    def _be_away(self, leave):
        self._sampler.pause()
        leave()
        self._server.start()
        self._sampler.go_on()

    # --- to the process -----------------------------------------------------------

    def _fork(self, side):
        """Fork a child that uses the pool, and ends in one of many ways."""
        way = self._chance.choice([_leave, _be_killed, _close_and_leave, _collect])
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            _be_child(side, way, theirs)
        os.close(theirs)
        try:
            self._see_to(child, way, ours)
        finally:
            os.close(ours)
            os.waitpid(child, 0)

    def _see_to(self, child, way, ours):
        said = b""
        while True:
            ready, _, _ = select.select([ours], [], [], CHILD_PATIENCE)
            if not ready:
                os.kill(child, signal.SIGABRT)
                self._report(f"a forked child did not end: {way.__name__}", said)
                return
            data = os.read(ours, 65536)
            if not data:
                break
            said += data
        if said != b"fine":
            self._report(f"a forked child failed: {way.__name__}", said.decode())


def _be_child(side, way, theirs):
    try:
        side.run_in_child(_use(side, way, theirs))
    except BaseException:
        os.write(theirs, traceback.format_exc().encode())
    finally:
        os._exit(1)


async def _use(side, way, theirs):
    for number in range(5):
        question = f"child {os.getpid()} asks {number}"
        async with entered(side.pool.connection(timeout=CHILD_PATIENCE / 2)) as conn:
            answer = await fetch(conn, "select %s::text", [question])
        assert answer == question, f"{answer!r} to {question!r}"
    os.write(theirs, b"fine")
    await way(side)


async def _leave(side):
    os._exit(0)


async def _be_killed(side):
    os.kill(os.getpid(), signal.SIGKILL)


async def _close_and_leave(side):
    await result(side.pool.close())
    os._exit(0)


async def _collect(side):
    del side.pool
    gc.collect()
    os._exit(0)
