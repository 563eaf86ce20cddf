"""The fixtures of `edgepool.testing.plugin`, as a user's test suite has them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from edgepool import AsyncConnectionPool
from edgepool.testing import PoolPerLoop

pytest_plugins = ["pytester"]

HOW_TO = Path(__file__).parents[2] / "docs/how-to/test-your-application.md"

CONFTEST = """
    pytest_plugins = ["edgepool.testing.plugin"]
"""


@pytest.fixture
def suite(pytester, server, monkeypatch):
    """Run a test suite with the plugin, against the shared server.

    In a process of its own: here somebody may have imported the plugin already.
    """
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def run(test, *options, conftest="", dsn=server.conninfo):
        pytester.makeconftest(CONFTEST + conftest)
        pytester.makeini(f"[pytest]\nfilterwarnings = error\nedgepool_dsn = {dsn}\n")
        pytester.makepyfile(test)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)

    return run


def test_each_test_has_its_pool_and_leaves_nothing(suite, table):
    done = suite(
        f"""
        import pytest

        @pytest.mark.parametrize("turn", [1, 2])
        def test_rolled_back(edgepool_transactional_pool, turn):
            with edgepool_transactional_pool.connection() as conn:
                conn.execute("insert into {table} values (1)")

        def test_nothing_is_left(edgepool_pool):
            assert (1, 10) == (edgepool_pool.min_size, edgepool_pool.max_size)
            with edgepool_pool.connection() as conn:
                assert [] == conn.execute("select * from {table}").fetchall()
        """
    )

    done.assert_outcomes(passed=3)


def test_arguments_are_the_users(suite):
    done = suite(
        """
        def test_arguments(edgepool_pool, edgepool_transactional_pool):
            with edgepool_pool.connection() as conn:
                assert {"one": 1} == conn.execute("select 1 as one").fetchone()
            assert 3 == edgepool_transactional_pool.max_size
        """,
        conftest="""
    import pytest
    from psycopg.rows import dict_row

    @pytest.fixture
    def edgepool_arguments():
        return {"min_size": 0, "max_size": 3, "kwargs": {"row_factory": dict_row}}
        """,
    )

    done.assert_outcomes(passed=1)


def test_faults_are_in_the_way_if_a_test_asks_for_them(suite):
    done = suite(
        """
        import pytest
        from edgepool import PoolTimeout

        def test_faults(edgepool_faults, edgepool_pool):
            with edgepool_pool.connection():
                pass
            with edgepool_faults.refuse_connections():
                edgepool_faults.lose_connections()
                with pytest.raises(PoolTimeout), edgepool_pool.connection(0.1):
                    pass
            with edgepool_pool.connection():
                pass
        """
    )

    done.assert_outcomes(passed=1)


ANYIO = """
    import pytest

    pytestmark = pytest.mark.anyio

    @pytest.fixture(scope="{scope}")
    def anyio_backend():
        return "asyncio"

    async def test_one(edgepool_async_transactional_pool, edgepool_async_pool):
        assert edgepool_async_pool() is edgepool_async_pool()
        async with edgepool_async_transactional_pool().connection() as conn:
            await conn.execute("insert into {table} values (1)")

    async def test_two(edgepool_async_transactional_pool, edgepool_async_pool):
        async with edgepool_async_transactional_pool().connection() as conn:
            await conn.execute("insert into {table} values (1)")
        async with edgepool_async_pool().connection() as conn:
            cursor = await conn.execute("select * from {table}")
            assert [] == await cursor.fetchall()
"""


@pytest.mark.parametrize("scope", ["function", "session"])
def test_each_loop_has_its_pool(suite, table, sessions, scope):
    done = suite(ANYIO.format(scope=scope, table=table))

    done.assert_outcomes(passed=2)


def test_each_worker_of_xdist_has_a_database(suite, server, admin, monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw3")
    done = suite(
        """
        def test_database(edgepool_pool):
            with edgepool_pool.connection() as conn:
                assert "postgres_gw3" == conn.info.dbname
        """
    )

    done.assert_outcomes(passed=1)
    names = admin.execute("select datname from pg_database").fetchall()
    assert ("postgres_gw3",) not in names


def test_what_the_how_to_shows_runs(pytester, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    text = HOW_TO.read_text(encoding="utf-8")
    files = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", text, re.M | re.S)
    for name, body in files:
        (pytester.path / name).write_text(body)
    pytester.syspathinsert()

    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")

    assert ["shop.py", "conftest.py", "test_shop.py"] == [name for name, _ in files]
    done.assert_outcomes(passed=4)


def test_nobody_gets_the_plugin_without_asking():
    code = "import sys, edgepool.testing; sys.exit('pytest' in sys.modules)"

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode


# --- the pool of each loop -----------------------------------------------------------


def test_a_pool_is_closed_when_its_loop_ends(conninfo):
    made = []

    def make():
        made.append(AsyncConnectionPool(conninfo, min_size=1))
        return made[-1]

    pools = PoolPerLoop(make)

    async def use():
        pool = pools()
        async with pool.connection() as conn:
            await conn.execute("select 1")
        assert pool is pools()

    asyncio.run(use())
    asyncio.run(use())

    assert [True, True] == [pool.closed for pool in made]
    pools.close()


def test_a_pool_is_closed_while_its_loop_stands_still(conninfo):
    pools = PoolPerLoop(lambda: AsyncConnectionPool(conninfo, min_size=1))
    loop = asyncio.new_event_loop()

    async def use():
        async with pools().connection() as conn:
            await conn.execute("select 1")
        return pools()

    pool = loop.run_until_complete(use())
    pools.close()

    assert pool.closed
    loop.close()


def test_without_a_loop_there_is_no_pool():
    with pytest.raises(RuntimeError, match="no running event loop"):
        PoolPerLoop(AsyncConnectionPool)()


def test_a_shared_session_serves_psycopg_itself(conninfo, table):
    from edgepool.testing import TransactionalPool

    with TransactionalPool(conninfo, min_size=1) as pool:
        with psycopg.connect(pool.shared_conninfo()) as conn:
            conn.execute(f"insert into {table} values (1)")
        with psycopg.connect(pool.shared_conninfo()) as conn:
            assert (1,) == conn.execute(f"select * from {table}").fetchone()
