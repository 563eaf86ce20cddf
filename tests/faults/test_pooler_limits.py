"""A real PgBouncer that is full: those who come wait for what the pool has."""

from __future__ import annotations

import psycopg
import pytest

from edgepool import PoolTimeout
from support.conservation import conserved
from support.parity import borrowed, entered, eventually, execute, result
from support.pg import borrow_error, error_of, load, more


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_a_pooler_that_takes_no_more_clients_fails_nobody(colour, bouncer, mode):
    pooler = bouncer(mode, max_client_conn=3)
    async with colour.pool(pooler.conninfo_for(), min_size=0, max_size=10) as pool:
        async with load(pool, 16, hold=0.002) as busy:
            await more(busy, 500)
            now = pool.statistics()

        assert [] == busy.errors
        assert 1 <= now.ceiling <= 3
        assert 1 <= now.connects_refused == now.connect_errors

        # As many as it is sure to get.
        await result(pool.resize(0, now.ceiling))
        await conserved(pool, pooler)


async def test_who_waits_in_vain_is_told_what_the_pooler_said(colour, bouncer):
    pooler = bouncer("session", max_client_conn=1)
    async with colour.pool(
        pooler.conninfo_for(), min_size=0, max_size=4, pooler="session"
    ) as pool:
        async with borrowed(pool, 1):
            error, _ = await borrow_error(pool, 0.2)

        assert type(error) is PoolTimeout
        assert "no more connections allowed" in str(error.__cause__)
        # PgBouncer's own is 08P01, as for everything.
        assert "53300" == error.__cause__.sqlstate

        await result(pool.resize(0, 1))
        await conserved(pool, pooler)


async def test_a_pooler_without_a_session_to_spare_ends_the_growth(colour, bouncer):
    pooler = bouncer("transaction", default_pool_size=1, query_wait_timeout=1)
    async with colour.pool(
        pooler.conninfo_for(), min_size=2, max_size=8, pooler="transaction"
    ) as pool:
        await eventually(lambda: pool.statistics().idle == 2)
        async with entered(pool.connection()) as conn:
            await execute(conn, "select 1")  # and keeps the session
            error = await error_of(ask(pool))

            assert isinstance(error, psycopg.errors.ProtocolViolation)
            assert "query_wait_timeout" in str(error)
            assert 2 == pool.statistics().ceiling

        await ask(pool)

        await result(pool.resize(2, 2))
        await conserved(pool, pooler)


async def ask(pool):
    async with entered(pool.connection()) as conn:
        await execute(conn, "select 1")
