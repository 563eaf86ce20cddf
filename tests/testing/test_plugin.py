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

    def run(test, *options, conftest="", **settings):
        dsn = server.conninfo
        settings = {"filterwarnings": "error", "edgepool_dsn": dsn, **settings}
        lines = [f"{name} = {value}" for name, value in settings.items()]
        pytester.makeini("\n".join(["[pytest]", *lines]))
        pytester.makeconftest(CONFTEST + conftest)
        pytester.makepyfile(test)
        if "asyncio_mode" not in settings:  # as for those who do not have it
            options = ("-p", "no:asyncio", *options)
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


# A test, run twice, that finds the row of its fixture and no other.
ASYNC = """
    import asyncio
    import pytest
    {imports}

    seen = []

    {fixture}
    async def row(edgepool_async_transactional_pool):
        async with edgepool_async_transactional_pool().connection() as conn:
            await conn.execute("insert into {table} values (1)")

    {mark}
    @pytest.mark.parametrize("turn", [1, 2])
    async def test_row(
        row, edgepool_async_transactional_pool, edgepool_async_pool, turn
    ):
        transactional, plain = (
            edgepool_async_transactional_pool(), edgepool_async_pool()
        )
        assert transactional is edgepool_async_transactional_pool()
        async with transactional.connection() as conn, plain.connection() as other:
            cursor = await conn.execute("select * from {table}")
            assert [(1,)] == await cursor.fetchall()
            cursor = await other.execute("select * from {table}")
            assert [] == await cursor.fetchall()
        seen.append((asyncio.get_running_loop(), transactional, plain))

    def test_each_has_its_pools_and_they_are_closed():
        loops, *pools = (set(each) for each in zip(*seen))
        assert ({loops}, [2, 2]) == (len(loops), [len(each) for each in pools])
        assert all(pool.closed for each in pools for pool in each)
"""


# anyio ends a loop as soon as no fixture is alive in it.
ANYIO = """
    @pytest.fixture(scope="{scope}")
    def anyio_backend():
        return "asyncio"

    @pytest.fixture(scope="{scope}", autouse=True)
    async def keeper(anyio_backend):
        yield
"""


@pytest.mark.parametrize(("scope", "loops"), [("function", 2), ("session", 1)])
def test_each_loop_of_anyio_has_its_pools(suite, table, scope, loops):
    done = suite(
        ASYNC.format(
            imports=ANYIO.format(scope=scope),
            fixture="@pytest.fixture",
            mark="@pytest.mark.anyio",
            table=table,
            loops=loops,
        )
    )

    done.assert_outcomes(passed=3)


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_each_loop_of_pytest_asyncio_has_its_pools(suite, pytester, table, mode):
    loops = {"function": 2, "module": 1, "session": 1}
    unmarked = mode == "auto"

    def suited(scope):
        usual = unmarked and scope == "function"
        return ASYNC.format(
            imports="import pytest_asyncio",
            fixture="@pytest.fixture"
            if usual
            else f'@pytest_asyncio.fixture(loop_scope="{scope}")',
            mark="" if usual else f'@pytest.mark.asyncio(loop_scope="{scope}")',
            table=table,
            loops=loops[scope],
        )

    pytester.makepyfile(
        test_module=suited("module"),
        # Two modules in one loop.
        test_session=suited("session"),
        test_session_again=suited("session"),
    )
    done = suite(
        suited("function"),
        asyncio_mode=mode,
        asyncio_default_fixture_loop_scope="function",
    )

    done.assert_outcomes(passed=12)


def test_a_fixture_with_a_loop_of_its_own_has_a_pool_of_its_own(suite, table):
    done = suite(
        f"""
        import pytest
        import pytest_asyncio

        @pytest_asyncio.fixture(loop_scope="session")
        async def row(edgepool_async_transactional_pool):
            async with edgepool_async_transactional_pool().connection() as conn:
                await conn.execute("insert into {table} values (1)")

        @pytest.mark.asyncio
        async def test_row(row, edgepool_async_transactional_pool):
            async with edgepool_async_transactional_pool().connection() as conn:
                cursor = await conn.execute("select * from {table}")
                assert [] == await cursor.fetchall()
        """,
        asyncio_mode="strict",
        asyncio_default_fixture_loop_scope="function",
    )

    done.assert_outcomes(passed=1)


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


SHUFFLED = """
    import random

    import psycopg
    import pytest

    def pytest_collection_modifyitems(items):
        random.Random(7).shuffle(items)

    @pytest.fixture(scope="session", autouse=True)
    def schema(edgepool_database):
        with psycopg.connect(edgepool_database) as conn:
            conn.execute("create table {table}_of_worker (x int primary key)")
"""

ORDERED = """
    import pytest

    @pytest.mark.parametrize("turn", range(2))
    def test_threads(edgepool_transactional_pool, turn):
        with edgepool_transactional_pool.connection() as conn:
            conn.execute("insert into {table}_of_worker values (1)")

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.parametrize("turn", range(2))
    async def test_tasks(edgepool_async_transactional_pool, turn):
        async with edgepool_async_transactional_pool().connection() as conn:
            await conn.execute("insert into {table}_of_worker values (1)")

    @pytest.mark.parametrize("turn", range(2))
    def test_nothing_is_left(edgepool_faults, edgepool_pool, turn):
        with edgepool_pool.connection() as conn:
            found = conn.execute("select * from {table}_of_worker")
            assert [] == found.fetchall()
"""


def test_any_order_on_any_worker_of_xdist(suite, table, admin):
    done = suite(
        ORDERED.format(table=table),
        *("-n", "2"),
        conftest=SHUFFLED.format(table=table),
    )

    done.assert_outcomes(passed=6)
    names = {name for (name,) in admin.execute("select datname from pg_database")}
    assert not {"postgres_gw0", "postgres_gw1"} & names


def test_what_the_how_to_shows_runs(pytester, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    text = HOW_TO.read_text(encoding="utf-8")
    files = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", text, re.M | re.S)
    for name, body in files:
        (pytester.path / name).write_text(body)
    pytester.syspathinsert()

    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:asyncio")

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


def test_a_pool_for_each_loop_is_made_by_a_function():
    with pytest.raises(TypeError, match=r"^make must be a function, not 'dsn'$"):
        PoolPerLoop("dsn")


def test_a_shared_session_serves_psycopg_itself(conninfo, table):
    from edgepool.testing import TransactionalPool

    with TransactionalPool(conninfo, min_size=1) as pool:
        with psycopg.connect(pool.shared_conninfo()) as conn:
            conn.execute(f"insert into {table} values (1)")
        with psycopg.connect(pool.shared_conninfo()) as conn:
            assert (1,) == conn.execute(f"select * from {table}").fetchone()
