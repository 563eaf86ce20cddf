"""What the pool finds out about a pooler in front of its server, and what that costs.

Behind a real PgBouncer: what it does about it is in tests/faults/test_pgbouncer.py.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack

import psycopg
import pytest
from psycopg.pq import ConnStatus

import edgepool
from edgepool.psycopg import _detection, _pooler
from edgepool.psycopg._detection import (
    NAME,
    PROCESS,
    SESSION,
    _Witness,
)
from edgepool.psycopg._pooler import Look, Pooler, Sight
from support.parity import entered, eventually, execute, fetch, result, spawn
from support.pg import at_rest, beside, borrow_error, load, more
from support.pg_proxy import Proxy

REAL, MADE_UP = 4711, 1 << 30

POOLS = (
    edgepool.ConnectionPool,
    edgepool.AsyncConnectionPool,
    edgepool.NullConnectionPool,
    edgepool.AsyncNullConnectionPool,
)


def looks(proxy):
    """The looks among what clients have sent."""
    texts = {PROCESS.decode(): Look.GLANCE, SESSION.decode(): Look.STARE}
    return [texts[sql] for sql in proxy.statements if sql in texts]


@pytest.fixture
def made_up():
    """Have any number be one that no process has, as PgBouncer's are but for 0.1 %."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pooler, "_may_exist", lambda process: False)
        yield patch


@pytest.fixture
def plausible(monkeypatch):
    """Have any number be one that a process may have."""
    monkeypatch.setattr(_pooler, "_may_exist", lambda process: True)


# --- the argument ---------------------------------------------------------------------


@pytest.mark.parametrize("cls", POOLS, ids=lambda cls: cls.__name__)
def test_another_word_is_refused(cls):
    message = (
        "^pooler must be 'auto', 'none', 'session' or 'transaction', not 'pgbouncer'$"
    )
    with pytest.raises(ValueError, match=message):
        cls(open=False, pooler="pgbouncer")


@pytest.mark.parametrize("cls", POOLS, ids=lambda cls: cls.__name__)
def test_what_the_user_says_is_what_there_is(cls):
    pool = cls(open=False, pooler="session")

    assert pool.statistics().pooler == "session"


@pytest.mark.parametrize("cls", POOLS, ids=lambda cls: cls.__name__)
def test_before_the_first_connection_nothing_is_known(cls):
    assert cls(open=False).statistics().pooler == "unknown"


# --- without a pooler -----------------------------------------------------------------


async def test_it_costs_one_statement_in_the_life_of_a_pool(colour, proxy):
    async with colour.pool(proxy.conninfo(), min_size=4) as pool:
        await at_rest(pool, 4)
        async with entered(pool.connection()) as conn:
            threshold = conn.prepare_threshold
        await result(pool.drain())
        await at_rest(pool, 4)

        assert (pool.statistics().pooler, threshold) == ("none", 5)
        assert proxy.statements == [PROCESS.decode()]


@pytest.mark.parametrize("pooler", ["none", "session"])
async def test_it_costs_nothing_if_the_user_says_what_there_is(colour, proxy, pooler):
    async with colour.pool(proxy.conninfo(), min_size=2, pooler=pooler) as pool:
        await at_rest(pool, 2)
        async with entered(pool.connection()) as conn:
            assert conn.prepare_threshold == 5

        assert (pool.statistics().pooler, proxy.statements) == (pooler, [])


async def test_it_comes_before_configure_and_opens_no_transaction(colour, proxy):
    async def configure(conn):
        await execute(conn, "select 'mine'")
        await result(conn.commit())

    callback = colour.callback(configure)
    async with colour.pool(proxy.conninfo(), min_size=1, configure=callback) as pool:
        await at_rest(pool, 1)

    sent = [PROCESS.decode(), "BEGIN", "select 'mine'", "COMMIT"]
    assert proxy.statements == sent


async def test_nothing_is_logged_about_it(colour, conninfo, caplog):
    with caplog.at_level(logging.INFO, "edgepool.pooler"):
        async with colour.pool(conninfo, min_size=1) as pool:
            await at_rest(pool, 1)

    assert [r for r in caplog.records if r.name == "edgepool.pooler"] == []


async def test_numbers_that_no_process_of_linux_has_are_no_pooler(
    colour, proxy, made_up
):
    async with colour.pool(proxy.conninfo(), min_size=3) as pool:
        await at_rest(pool, 3)

        assert pool.statistics().pooler == "none"

    assert looks(proxy) == [Look.STARE]


async def test_a_server_that_does_not_know_its_processes_is_taken_for_a_pooler(
    colour, proxy, monkeypatch
):
    monkeypatch.setattr(_detection, "PROCESS", b"SELECT no_such_function()")
    async with colour.pool(proxy.conninfo(), min_size=3) as pool:
        await at_rest(pool, 3)
        async with entered(pool.connection()) as conn:
            assert conn.prepare_threshold is None
        assert pool.statistics().pooler == "undetermined"

    assert proxy.statements == ["SELECT no_such_function()"]


# --- one looks for all ----------------------------------------------------------------


async def test_others_wait_for_who_looks(colour, proxy):
    proxy.delay = 0.02
    async with colour.pool(proxy.conninfo(), min_size=5, max_connecting=5) as pool:
        await at_rest(pool, 5)

    assert looks(proxy) == [Look.GLANCE]


async def test_but_not_for_one_who_hears_nothing(colour, proxy, monkeypatch):
    monkeypatch.setattr(_detection, "PATIENCE", 0.05)
    proxy.black_hole_at("Q", PROCESS)
    async with colour.pool(proxy.conninfo(), min_size=0, max_size=3) as pool:
        first = spawn(pool.getconn)
        await eventually(lambda: looks(proxy))
        proxy.lose()  # what was sent; who comes now is served

        conn = await first
        assert await fetch(conn, "select 1") == 1
        await result(pool.putconn(conn))
        assert pool.statistics().pooler == "none"

    assert looks(proxy) == [Look.GLANCE, Look.GLANCE]


# --- behind a pooler ------------------------------------------------------------------


@pytest.fixture
def before(bouncer):
    """Make a proxy before a pooler, to see what is sent to it: `before(mode)`."""
    with ExitStack() as started:

        def make(mode):
            proxy = Proxy(bouncer(mode).conninfo_for())
            started.callback(proxy.close)
            return proxy

        yield make


MODES = {"session": "undetermined", "transaction": "transaction"}


@pytest.mark.parametrize("mode", MODES)
async def test_it_costs_three_statements_in_the_life_of_a_pool(
    colour, before, mode, made_up
):
    proxy = before(mode)
    async with colour.pool(proxy.conninfo(), min_size=4) as pool:
        await at_rest(pool, 4)
        found = pool.statistics().pooler
        await result(pool.drain())
        await at_rest(pool, 4)

        assert found == pool.statistics().pooler == MODES[mode]

    assert looks(proxy) == [Look.STARE, Look.GLANCE, Look.STARE]


async def test_a_session_that_is_passed_on_is_not_shared(colour, bouncer, made_up):
    pooler = bouncer("session", default_pool_size=1)
    async with colour.pool(pooler.conninfo_for(), min_size=1) as pool:
        await at_rest(pool, 1)
        async with entered(pool.connection()) as conn:
            before = await fetch(conn, "select pg_backend_pid()")
        await result(pool.drain())
        await at_rest(pool, 1)
        async with entered(pool.connection()) as conn:
            assert await fetch(conn, "select pg_backend_pid()") == before

        assert pool.statistics().pooler == "undetermined"


class Libpq:
    """As much of libpq's connection as is asked about a witness."""

    def __init__(self, status=ConnStatus.OK):
        self.status = status


HERE, THERE = ("here", 1), ("there", 1)


@pytest.mark.parametrize(
    ("pgconn", "readable", "session", "held"),
    [
        (Libpq(), [], HERE, True),
        (Libpq(), [], THERE, False),  # the same number, of another server
        (Libpq(), [1], HERE, False),  # that may be its end
        (Libpq(ConnStatus.BAD), [], HERE, False),
        (None, [], HERE, False),
    ],
)
def test_a_witness_must_be_alive(pgconn, readable, session, held):
    witness = _Witness(lambda: pgconn, lambda timeout: readable, HERE)

    assert witness.has_held(session) is held


async def test_when_clients_queue_one_connection_is_enough(colour, bouncer, made_up):
    pooler = bouncer("transaction", default_pool_size=2)
    async with (
        colour.pool(pooler.conninfo_for(), min_size=8, pooler="none") as others,
        load(others, 16, "select pg_sleep(0.001)") as busy,
    ):
        await more(busy, 20)
        # Likely and not certain: on a machine that is busy they may not queue.
        found = "undetermined"
        tries = iter(range(50))
        while found == "undetermined" and next(tries, None) is not None:
            async with colour.pool(pooler.conninfo_for(), min_size=1) as pool:
                await at_rest(pool, 1)
                found = pool.statistics().pooler

    assert "transaction" == found


@pytest.mark.parametrize("mode", MODES)
async def test_it_does_so_also_if_its_number_might_be_a_process(
    colour, before, mode, plausible
):
    proxy = before(mode)
    async with colour.pool(proxy.conninfo(), min_size=3) as pool:
        await at_rest(pool, 3)

        assert pool.statistics().pooler == MODES[mode]

    assert looks(proxy) == [Look.GLANCE, Look.STARE, Look.STARE]


@pytest.mark.parametrize("mode", MODES)
async def test_prepared_statements_are_off_before_the_first_one(colour, bouncer, mode):
    seen = []

    async def configure(conn):
        seen.append(conn.prepare_threshold)

    async with colour.pool(
        bouncer(mode).conninfo_for(), min_size=3, configure=colour.callback(configure)
    ) as pool:
        await at_rest(pool, 3)
        async with entered(pool.connection()) as conn:
            assert conn.prepare_threshold is None

    assert seen == [None, None, None]


async def test_nothing_is_left_behind(colour, bouncer, admin):
    pooler = bouncer("transaction", default_pool_size=1)
    async with colour.pool(pooler.conninfo_for(), min_size=2) as pool:
        await at_rest(pool, 2)
        async with entered(pool.connection()) as conn:
            left = "select count(*) from pg_prepared_statements"
            assert await fetch(conn, left) == 0


@pytest.mark.parametrize("asked", ["auto", "transaction"])
async def test_they_stay_on_if_it_keeps_track_of_them(colour, before, asked):
    proxy = before("transaction")
    # Its own name for a statement, as PgBouncer has since 1.21.
    proxy.replace = NAME + b"\0", b"PGBOUNCER_0001\0"
    async with colour.pool(proxy.conninfo(), min_size=2, pooler=asked) as pool:
        await at_rest(pool, 2)
        async with entered(pool.connection()) as conn:
            assert conn.prepare_threshold == 5
            assert pool.statistics().pooler == "transaction"

    assert looks(proxy).count(Look.STARE) == 1


async def test_a_pooler_that_cannot_prepare_is_looked_at_once(
    colour, before, monkeypatch, made_up
):
    monkeypatch.setattr(_detection, "SESSION", b"SELECT no_such_function()")
    proxy = before("transaction")
    async with colour.pool(proxy.conninfo(), min_size=3) as pool:
        await at_rest(pool, 3)
        async with entered(pool.connection()) as conn:
            assert conn.prepare_threshold is None
            assert pool.statistics().pooler == "undetermined"

    assert proxy.statements.count("SELECT no_such_function()") == 1


async def test_why_it_broke_off_is_told(colour, bouncer, made_up):
    pooler = bouncer("transaction", default_pool_size=1, query_wait_timeout=1)
    with psycopg.connect(pooler.conninfo_for()) as other:
        await beside(other.execute, "select 1")  # and has the only session
        async with colour.pool(pooler.conninfo_for(), min_size=1) as pool:
            await eventually(lambda: pool.statistics().connect_errors >= 1)
            error, _ = await borrow_error(pool, 0.05)

    assert "query_wait_timeout" == str(error.__cause__)
    assert pool.statistics().connects_refused >= 1


async def test_without_a_libpq_that_closes_statements_none_is_prepared(
    colour, before, monkeypatch, made_up
):
    capabilities = _detection.capabilities
    monkeypatch.setattr(capabilities, "has_send_close_prepared", lambda: False)
    proxy = before("transaction")
    async with colour.pool(proxy.conninfo(), min_size=2) as pool:
        await at_rest(pool, 2)
        async with entered(pool.connection()) as conn:
            assert conn.prepare_threshold is None
            assert pool.statistics().pooler == "transaction"

    assert [body for kind, body in proxy.messages if NAME + b"\0" in body] == []


async def test_one_line_tells(colour, bouncer, caplog, made_up):
    conninfo = bouncer("transaction").conninfo_for()
    with caplog.at_level(logging.INFO, "edgepool.pooler"):
        async with colour.pool(conninfo, min_size=1, name="mine") as pool:
            await at_rest(pool, 1)

    assert caplog.messages == ["mine: pooler: undetermined; prepared statements: off"]


# --- when it comes, or goes -----------------------------------------------------------


class Name:
    """An address that may come to mean another one."""

    def __init__(self, colour, conninfo):
        self.means = conninfo
        self.conninfo = colour.callback(self._conninfo)

    async def _conninfo(self):
        return self.means


async def test_a_pooler_that_has_come_is_noticed(colour, conninfo, bouncer):
    name = Name(colour, conninfo)
    async with colour.pool(name.conninfo, min_size=1) as pool:
        await at_rest(pool, 1)
        name.means = bouncer("session").conninfo_for()
        await result(pool.drain())
        await at_rest(pool, 1)
        async with entered(pool.connection()) as conn:
            assert conn.prepare_threshold is None
            assert pool.statistics().pooler == "undetermined"


async def test_a_pooler_that_has_gone_is_noticed(colour, conninfo, bouncer, made_up):
    name = Name(colour, bouncer("transaction").conninfo_for())
    async with colour.pool(name.conninfo, min_size=2, reset="clean") as pool:
        await at_rest(pool, 2)
        found = pool.statistics().pooler
        made_up.undo()
        name.means = conninfo
        await result(pool.drain())
        await at_rest(pool, 2)
        async with entered(pool.connection()) as conn:
            await execute(conn, "set statement_timeout = 1")
        await at_rest(pool, 2)
        async with entered(pool.connection()) as conn:
            assert conn.prepare_threshold == 5
            assert await fetch(conn, "show statement_timeout") == "0"

        assert (found, pool.statistics().pooler) == ("transaction", "none")


@pytest.mark.parametrize("asked", ["auto", "transaction"])
async def test_another_address_is_looked_at_anew(
    colour, before, bouncer, made_up, asked
):
    """What one pooler keeps track of, the next one may mix up."""
    proxy = before("transaction")
    proxy.replace = NAME + b"\0", b"PGBOUNCER_0001\0"
    async with colour.pool(proxy.conninfo(), min_size=2, pooler=asked) as pool:
        await at_rest(pool, 2)
        async with entered(pool.connection()) as conn:
            assert conn.prepare_threshold == 5
        await result(pool.switch(bouncer("transaction").conninfo_for(), over=0))
        await at_rest(pool, 2)
        async with entered(pool.connection()) as conn:
            assert conn.prepare_threshold is None


# --- the decisions --------------------------------------------------------------------


def look_at(pooler, process, told=MADE_UP, shared=False, **sight):
    """Take all looks that a pooler wants at a new connection; tell which."""
    taken = ()
    while (look := pooler.next_look(told, taken)) is not None:
        pooler.looking(look)
        renames = look is Look.STARE and sight.get("renames", False)
        pooler.saw(Sight(told, process, renames=renames), shared)
        taken += (look,)
    return list(taken)


def test_two_connections_look_at_a_pooler():
    pooler = Pooler("auto")

    assert look_at(pooler, 1) == [Look.STARE, Look.GLANCE]
    assert look_at(pooler, 2) == [Look.STARE]
    assert look_at(pooler, 3) == []
    assert (pooler.mode, pooler.prepares) == ("undetermined", False)


def test_a_process_of_two_is_proof():
    pooler = Pooler("auto")
    look_at(pooler, 1)

    assert look_at(pooler, 1, shared=True) == [Look.STARE]
    assert look_at(pooler, 1) == []
    assert (pooler.mode, pooler.prepares) == ("transaction", False)


def test_a_process_that_changes_is_proof():
    pooler = Pooler("auto")
    pooler.looking(Look.STARE)
    pooler.saw(Sight(MADE_UP, 1), shared=False)
    pooler.looking(Look.GLANCE)
    pooler.saw(Sight(MADE_UP, 2), shared=True)

    assert pooler.next_look(MADE_UP, (Look.STARE, Look.GLANCE)) is None
    assert (pooler.mode, pooler.prepares) == ("transaction", False)


def test_another_name_is_proof_and_makes_preparing_safe():
    pooler = Pooler("auto")

    assert look_at(pooler, 1, renames=True) == [Look.STARE]
    assert look_at(pooler, 2, renames=True) == []
    assert (pooler.mode, pooler.prepares) == ("transaction", True)


def test_an_unusual_number_changes_nothing():
    pooler = Pooler("auto")
    look_at(pooler, 1)
    look_at(pooler, 1, shared=True)

    assert look_at(pooler, 2, told=REAL) == [Look.GLANCE]
    assert look_at(pooler, 2) == []
    assert (pooler.mode, pooler.prepares) == ("transaction", False)
    # So it can still be seen to have gone.
    assert look_at(pooler, REAL, told=REAL) == [Look.GLANCE]
    assert (pooler.mode, pooler.prepares) == ("none", True)


def test_a_pooler_that_breaks_off_when_it_is_stared_at_is_left_alone():
    pooler = Pooler("auto")
    for _ in range(2):
        assert pooler.next_look(MADE_UP) is Look.STARE
        pooler.looking(Look.STARE)

    assert look_at(pooler, 1) == [Look.GLANCE]
    assert look_at(pooler, 1) == []
    assert (pooler.mode, pooler.prepares) == ("undetermined", False)


def test_a_glance_that_came_to_nothing_is_repeated():
    pooler = Pooler("auto")
    for _ in range(3):
        pooler.looking(Look.GLANCE)

    assert look_at(pooler, REAL, told=REAL) == [Look.GLANCE]
    assert (pooler.mode, pooler.prepares) == ("none", True)
