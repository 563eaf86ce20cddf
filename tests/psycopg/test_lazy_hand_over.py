"""A lazy lease that one thread or task enters and ends, and another one uses."""

from __future__ import annotations

from edgepool import ConnectionReturned, PoolTimeout
from support.parity import borrowed, entered, execute, result, spawn, stat
from support.pg import at_rest, error_of


async def test_who_uses_anothers_lease_does_not_wait_for_himself(colour, conninfo):
    """It is not he who will return it."""
    async with colour.pool(conninfo, min_size=1, max_size=1) as pool:

        async def use_and_ask_for_more():
            await execute(conn, "select 1")
            async with entered(pool.connection(timeout=0.05)):
                pass

        async with entered(pool.connection(lazy=True)) as conn:
            error = await error_of(spawn(use_and_ask_for_more))

        assert type(error) is PoolTimeout
        await at_rest(pool, 1)


async def test_a_lease_may_end_while_another_borrows_for_it(colour, conninfo):
    async with colour.pool(conninfo, min_size=1, max_size=1) as pool:
        async with borrowed(pool, 1), entered(pool.connection(lazy=True)) as conn:
            asking = spawn(execute, conn, "select 1")
            await stat(pool, "requests_waiting", 1)
        error = await error_of(asking)

        assert isinstance(error, ConnectionReturned)
        await at_rest(pool, 1)
        await result(pool.check())
