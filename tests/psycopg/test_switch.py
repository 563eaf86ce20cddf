"""A pool moves to another server, and stays where it is if that is no good."""

from __future__ import annotations

import logging

import psycopg
import pytest

from edgepool import ConnectFailed, ErrorClass, Pool, PoolClosed, PoolTimeout
from edgepool._drivers import workers
from edgepool.testing import PostgresServer
from support.cancel import at_every_suspension
from support.conservation import conserved
from support.parity import borrowed, entered, eventually, lend, result
from support.pg import TASKS, Sessions, at_rest, beside, error_of, load, more
from support.pg_proxy import Proxy

NAME = "moving"


@pytest.fixture(scope="module")
def other():
    with PostgresServer() as running:
        yield running


@pytest.fixture
def there(other):
    """What the other server knows of the sessions of these tests."""
    with psycopg.connect(other.conninfo, autocommit=True) as admin:
        yield Sessions(admin, NAME)


@pytest.fixture
def address(other):
    return other.conninfo_for(application_name=NAME)


async def switch(pool, *arguments, **keywords):
    await result(pool.switch(*arguments, **keywords))


async def unchanged(pool, conninfo, sessions, before):
    """Check that a pool has its old connections, and no other address."""
    assert conninfo == pool.conninfo
    assert before == sessions.pids
    assert await lend(pool) in before


@pytest.mark.parametrize("over", [0, 0.3])
async def test_nobody_notices(colour, conninfo, sessions, address, there, over):
    async with (
        colour.pool(conninfo, min_size=3, max_size=4) as pool,
        load(pool, 3) as busy,
    ):
        await at_rest_or_more(pool, 3)
        await more(busy, 50)
        await switch(pool, address, over=over)

        assert address == pool.conninfo
        await eventually(lambda: not sessions.count)
        await more(busy, 50)

        assert [] == busy.errors
        assert 0 == pool.statistics().connect_errors
        assert await lend(pool) in there.pids
        assert 3 <= there.count <= 4


async def at_rest_or_more(pool, number):
    await eventually(lambda: pool.statistics().size >= number)


async def test_over_is_half_a_minute_by_default(
    colour, conninfo, sessions, address, there
):
    async with colour.pool(conninfo, min_size=4) as pool:
        await at_rest(pool, 4)
        await switch(pool, address)

        # One after the other, so that most of them are still there.
        assert 3 <= sessions.count
        assert {*sessions.pids, *there.pids} >= {await lend(pool)}


async def test_the_first_connections_are_not_kept(colour, conninfo, address, there):
    async with colour.pool(conninfo, min_size=0, max_size=1) as pool:
        await switch(pool, address)

        await eventually(lambda: not there.count)
        assert await lend(pool) in there.pids


async def test_a_server_that_is_down_changes_nothing(
    colour, conninfo, sessions, own_server
):
    server = own_server()
    await beside(server.stop)
    async with colour.pool(conninfo, min_size=2) as pool:
        await at_rest(pool, 2)
        before = sessions.pids
        error = await error_of(switch(pool, server.conninfo, over=0, timeout=1))

        assert isinstance(error, PoolTimeout)
        assert "refused" in str(error.__cause__)
        await unchanged(pool, conninfo, sessions, before)


async def test_a_server_that_does_not_answer_is_not_waited_for_any_longer(
    colour, conninfo, sessions, proxy, monkeypatch, caplog
):
    # Whoever waited for the connects, or for their threads, would have to do so for
    # long, and would say that he has cut them off.
    monkeypatch.setattr(Pool, "_hanging", float("inf"))
    monkeypatch.setattr(workers, "PATIENCE", 1000.0)
    proxy.black_hole()
    nowhere = proxy.conninfo(connect_timeout=0)
    async with colour.pool(conninfo, min_size=2) as pool:
        await at_rest(pool, 2)
        before = sessions.pids
        error = await error_of(switch(pool, nowhere, over=0, timeout=0.3))

        assert type(error) is PoolTimeout
        assert "cut off" not in caplog.text
        await unchanged(pool, conninfo, sessions, before)


@pytest.fixture
def small(other):
    """An address of the other server at which there is room for two."""
    with psycopg.connect(other.conninfo, autocommit=True) as admin:
        admin.execute("create role small login connection limit 2")
        yield other.conninfo_for(user="small", application_name=NAME)
        admin.execute("drop role small")


async def test_a_server_that_is_soon_full_changes_nothing(
    colour, conninfo, sessions, small, there
):
    async with colour.pool(conninfo, min_size=3) as pool:
        await at_rest(pool, 3)
        before = sessions.pids
        error = await error_of(switch(pool, small, over=0, timeout=1))

        assert type(error) is PoolTimeout
        assert "too many connections for role" in str(error.__cause__)
        await unchanged(pool, conninfo, sessions, before)
        await eventually(lambda: not there.count)


@pytest.mark.parametrize("arguments", [{}, {"max_connecting": 2}])
async def test_there_has_to_be_room_for_what_the_pool_has(
    colour, conninfo, small, arguments
):
    # Two, or three of which no more than two are opened at the same time.
    size = 2 + len(arguments)
    async with colour.pool(conninfo, min_size=0, max_size=4, **arguments) as pool:
        async with borrowed(pool, size):
            await switch(pool, small, over=0)

        assert small == pool.conninfo


async def test_an_address_that_cannot_be_is_refused_at_once(
    colour, conninfo, sessions, other
):
    nowhere = other.conninfo_for(dbname="nowhere", password="hush")
    async with colour.pool(conninfo, min_size=2) as pool:
        await at_rest(pool, 2)
        before = sessions.pids
        error = await error_of(switch(pool, nowhere, over=0))

        assert isinstance(error, ConnectFailed)
        assert "nowhere" in str(error)
        assert "hush" not in f"{error} {error.__cause__}"
        await unchanged(pool, conninfo, sessions, before)


async def test_what_configure_refuses_changes_nothing(
    colour, conninfo, sessions, address, other, there
):
    async def configure(conn):
        if conn.info.port == other.port:
            raise LookupError("no such table there")

    configure = colour.callback(configure)
    async with colour.pool(conninfo, min_size=2, configure=configure) as pool:
        await at_rest(pool, 2)
        before = sessions.pids
        error = await error_of(switch(pool, address, over=0))

        assert isinstance(error.__cause__, LookupError)
        await unchanged(pool, conninfo, sessions, before)
        await eventually(lambda: not there.count)


async def test_a_server_of_another_role_changes_nothing(
    colour, conninfo, sessions, other
):
    async with colour.pool(conninfo, min_size=2, role="primary") as pool:
        await at_rest(pool, 2)
        before = sessions.pids
        options = "-c default_transaction_read_only=on"
        reader = other.conninfo_for(options=options)
        error = await error_of(switch(pool, reader, over=0, timeout=1))

        assert "session is read-only" in str(error.__cause__)
        await unchanged(pool, conninfo, sessions, before)


async def test_the_class_of_connections_is_the_pools_there_too(
    colour, conninfo, address
):
    async def configure(conn):
        classes.append(type(conn))

    classes = []
    Ours = type("Ours", (colour.Connection,), {})
    async with colour.pool(
        conninfo,
        min_size=1,
        connection_class=Ours,
        configure=colour.callback(configure),
    ) as pool:
        await at_rest(pool, 1)
        await switch(pool, address)

    assert [Ours, Ours] == classes[:2]


async def test_further_arguments_are_the_pools_there_too(colour, role):
    async with colour.pool(
        role.conninfo(), min_size=1, kwargs={"password": "right"}
    ) as pool:
        await switch(pool, role.conninfo(dbname="template1"), over=0)
        async with entered(pool.connection()) as conn:
            assert "template1" == conn.info.dbname


async def test_what_the_user_says_of_a_pooler_counts_there_too(colour, conninfo, other):
    proxy = Proxy(other.conninfo)
    try:
        async with colour.pool(conninfo, min_size=0, max_size=1, pooler="none") as pool:
            await switch(pool, proxy.conninfo(), over=0)

            assert (1, []) == (proxy.connects, proxy.statements)
    finally:
        proxy.close()


async def test_errors_mean_the_same_there(colour, conninfo, sessions):
    def classify(error):
        return ErrorClass.FAIL_FAST

    async with colour.pool(conninfo, min_size=1, classify=classify) as pool:
        await at_rest(pool, 1)
        before = sessions.pids
        # By the table this is to be waited for.
        error = await error_of(switch(pool, "host=127.0.0.1 port=1"))

        assert isinstance(error, ConnectFailed)
        await unchanged(pool, conninfo, sessions, before)


async def test_arguments_of_the_pool_have_no_effect_there(
    colour, conninfo, address, caplog
):
    caplog.set_level(logging.INFO, logger="edgepool")
    async with colour.pool(conninfo, min_size=1, max_size=2, name="p") as pool:
        await at_rest(pool, 1)
        caplog.clear()
        await switch(pool, f"{address} password=hush pool_max_size=3 pool_timeout=7")

        assert (2, 30.0) == (pool.max_size, pool.timeout)

    told = [m for m in caplog.messages if "no effect" in m or "switched" in m]
    assert [
        "p: no effect in another conninfo, give it to the pool:"
        " pool_max_size=3 in the connection string,"
        " pool_timeout=7 in the connection string",
        "p: switched to another address",
    ] == told
    assert "hush" not in caplog.text


@pytest.mark.parametrize("colour", [TASKS], ids=["tasks"])
async def test_a_cancellation_changes_nothing_wherever_it_comes(
    colour, server, conninfo, sessions, address, there
):
    async def scenario(drive):
        async with colour.pool(conninfo, min_size=1) as pool:
            await at_rest(pool, 1)
            before = sessions.pids
            done = []

            async def move():
                await pool.switch(address, over=0)
                done.append(True)

            await drive(move())
            if done:
                await eventually(lambda: not sessions.count)
                return
            await unchanged(pool, conninfo, sessions, before)
            await eventually(lambda: not there.count)
            await conserved(pool, server, sessions.name)
        await eventually(lambda: not sessions.count)

    assert await at_every_suspension(scenario) > 1


@pytest.mark.parametrize(
    ("wrong", "keywords", "says"),
    [
        ("mysql://h", {}, "mysql:// is not the address of a PostgreSQL server"),
        ("host=h target_session_attrs=standby", {}, "role='primary' contradicts"),
        ("host=h", {"over": -1.0}, "over must be at least 0 and finite, not -1.0"),
        ("host=h", {"over": float("inf")}, "over must be at least 0 and finite"),
    ],
)
async def test_an_argument_that_cannot_be_is_refused(
    colour, conninfo, wrong, keywords, says
):
    async with colour.pool(conninfo, min_size=0, max_size=1, role="primary") as pool:
        error = await error_of(switch(pool, wrong, **keywords))

        assert isinstance(error, ValueError)
        assert says in str(error)
        assert conninfo == pool.conninfo


async def test_credentials_are_the_pools_there_too(colour, role):
    asked = []

    def credentials():
        asked.append(1)
        return "right"

    async with colour.pool(
        role.conninfo(), min_size=1, credentials=credentials
    ) as pool:
        await switch(pool, role.conninfo(dbname="template1"), over=0)
        async with entered(pool.connection()) as conn:
            assert "template1" == conn.info.dbname

    assert [1] == asked


async def test_a_host_that_does_not_answer_is_passed_over(
    colour, conninfo, other, there
):
    async with colour.pool(conninfo, min_size=1, role="primary") as pool:
        port = f"1,{other.port}"
        host = f"{other.host},{other.host}"
        both = other.conninfo_for(host=host, port=port, application_name=NAME)
        await switch(pool, both, over=0)

        assert await lend(pool) in there.pids


async def test_a_closed_pool_cannot_move(colour, conninfo, address):
    async with colour.pool(conninfo, min_size=1) as pool:
        await lend(pool)

    assert isinstance(await error_of(switch(pool, address)), PoolClosed)


async def test_a_pool_that_is_not_open_yet_only_gets_the_address(
    colour, conninfo, sessions, address, there
):
    pool = colour.Pool(conninfo, min_size=1)
    await switch(pool, address)

    assert pool.closed
    assert address == pool.conninfo
    async with entered(pool):
        assert await lend(pool) in there.pids
    assert 0 == sessions.count


async def test_a_null_pool_moves_as_well(colour, conninfo, address, there):
    async with colour.null_pool(conninfo, max_size=2) as pool:
        await switch(pool, address)
        await lend(pool)

        assert address == pool.conninfo
        await eventually(lambda: not there.count)
