"""What borrowers do to a pool, of threads or of tasks: at random, and not always nice.

Each row that comes back must be the asker's own.
"""

from __future__ import annotations

import asyncio
import itertools
import traceback
from collections import Counter
from random import Random

import psycopg

from support.parity import entered, execute, pause, result


class Interrupted(BaseException):
    """Raised in a thread from outside, anywhere, as Ctrl-C or `gevent.Timeout` is."""


class ForeignRow(Exception):
    """Somebody got an answer that was another one's."""


class Borrower:
    """Somebody who borrows again and again.

    Args:
        side: whose pool, and whether to pause or to stop.
        number: who this is.
        seed: what the choices are drawn from.

    Attributes:
        resting: whether this one holds and wants nothing, as long as the side is calm.
        counts: what became of the borrows.
    """

    def __init__(self, side, number, seed):
        self.side = side
        self.name = f"{side.name}-{number}"
        self.chance = Random(f"{seed} {self.name}")
        self.resting = False
        self.counts = Counter()
        self._numbers = itertools.count()
        self._ways = [self.use] * 8 + [
            self.ask_much,
            self.hold,
            self.hold,
            self.insert,
            self.fail,
            self.hurry,
            self.soil,
            self.close,
            self.take_too_long,
            self.stream,
            self.pipeline,
        ]

    async def run(self):
        """Borrow until the side is stopped; an interruption ends one borrow only."""
        while not self.side.stopped:
            try:
                await self._go_on()
            except (Interrupted, asyncio.CancelledError):
                self.counts["interrupted"] += 1

    async def _go_on(self):
        if self.side.calm:
            self.resting = True
            await pause(0.005)
            return
        self.resting = False
        try:
            await self.chance.choice(self._ways)()
        except psycopg.Error as error:
            self.counts[type(error).__name__] += 1
            await pause(0.001)
        except Exception as error:
            self.side.report(f"{self.name} got {error!r}", traceback.format_exc())
            await pause(0.1)
        else:
            self.counts["served"] += 1

    async def _ask(self, conn, expression="%s::text"):
        question = f"{self.name} asks {next(self._numbers)}"
        cursor = await execute(conn, f"select {expression}", [question])
        await self._must_be_mine(cursor, question)

    async def _must_be_mine(self, cursor, question):
        (answer,) = await result(cursor.fetchone())
        if answer != question:
            raise ForeignRow(f"{answer!r} to {question!r}")

    # --- ways to use a connection -------------------------------------------------

    async def use(self):
        async with entered(self.side.pool.connection()) as conn:
            await self._ask(conn)

    async def ask_much(self):
        async with entered(self.side.pool.connection()) as conn:
            for _ in range(self.chance.randint(2, 10)):
                await self._ask(conn)

    async def hold(self):
        async with entered(self.side.pool.connection()) as conn:
            await pause(self.chance.uniform(0.0, 0.02))
            await self._ask(conn)

    async def insert(self):
        async with (
            entered(self.side.pool.connection()) as conn,
            entered(conn.transaction(force_rollback=self.chance.random() < 0.5)),
        ):
            await execute(conn, "insert into asked values (%s)", [self.name])
            await self._ask(conn)

    async def fail(self):
        async with entered(self.side.pool.connection()) as conn:
            await execute(conn, "select 1 / 0")

    async def hurry(self):
        timeout = self.chance.choice([0.0, 0.001, 0.01])
        async with entered(self.side.pool.connection(timeout)) as conn:
            await self._ask(conn)

    async def soil(self):
        pool = self.side.pool
        conn = await result(pool.getconn())
        try:
            await self._ask(conn)
        finally:
            await result(pool.putconn(conn))

    async def close(self):
        async with entered(self.side.pool.connection()) as conn:
            await self._ask(conn)
            await result(conn.close())

    async def take_too_long(self):
        async with entered(self.side.pool.connection()) as conn:
            await execute(conn, "set local statement_timeout = '5ms'")
            await self._ask(conn, "%s::text from pg_sleep(1)")

    async def stream(self):
        async with entered(self.side.pool.connection()) as conn:
            question = f"{self.name} asks {next(self._numbers)}"
            async with entered(conn.cursor(name="streamed")) as cursor:
                query = "select %s::text from generate_series(1, 50)"
                await result(cursor.execute(query, [question]))
                for _ in range(self.chance.randint(0, 50)):
                    await self._must_be_mine(cursor, question)

    async def pipeline(self):
        async with (
            entered(self.side.pool.connection()) as conn,
            entered(conn.pipeline()),
        ):
            asked = [f"{self.name} asks {next(self._numbers)}" for _ in range(5)]
            cursors = [await execute(conn, "select %s::text", [q]) for q in asked]
            for cursor, question in zip(cursors, asked, strict=True):
                await self._must_be_mine(cursor, question)
