"""The log has one line for a change of the world, none for a borrow, no secret ever."""

from __future__ import annotations

import logging
import threading
import traceback

import psycopg
import pytest

from edgepool import ConnectFailed, ConnectionPool
from support.parity import (
    PATIENCE,
    borrowed,
    entered,
    eventually,
    execute,
    lend,
    result,
    spawn,
)
from support.pg import at_rest, beside, borrow_error, past_grace


@pytest.fixture(autouse=True)
def log(caplog):
    """The lines since the last `log.clear()`, at every level."""
    caplog.set_level(logging.DEBUG, logger="edgepool")
    return caplog


def lines(log, name="edgepool", level=logging.INFO):
    """What was logged below a logger, from a level on."""
    return [
        record.getMessage()
        for record in log.records
        if record.name.startswith(name) and record.levelno >= level
    ]


async def told(log, name, number):
    """Wait for so many lines: a thing may be told a moment after it has happened."""
    await eventually(lambda: len(lines(log, name)) >= number)

    assert len(lines(log, name)) == number


def connect_errors(pool):
    return pool.get_stats().get("connections_errors", 0)


# --- what is said ---------------------------------------------------------------------


async def test_a_borrow_says_nothing(colour, conninfo, log):
    check = colour.Pool.check_connection
    async with (
        colour.pool(conninfo, min_size=2) as probing,
        colour.pool(conninfo, min_size=2, check=check) as checking,
    ):
        await told(log, "edgepool.connect", 4)
        log.clear()
        for pool in (probing, checking):
            for _ in range(20):
                await past_grace()
                async with entered(pool.connection()) as conn:
                    await execute(conn, "select 1")
            async with borrowed(pool, 2):
                waiting = spawn(lend, pool)
                await eventually(lambda p=pool: p.get_stats()["requests_waiting"] == 1)
            await waiting

        assert [] == log.records


async def test_the_life_of_a_pool_in_a_few_lines(colour, conninfo, log):
    async with colour.pool(conninfo, min_size=3, name="mine"):
        await told(log, "edgepool.connect", 3)

        assert ["mine: open"] == lines(log, "edgepool.pool")
        assert len(lines(log)) == 4

        log.clear()

    assert ["mine: closed"] == lines(log, "edgepool.pool")
    assert len(lines(log, "edgepool.retire")) == 3
    assert len(lines(log)) == 4


async def test_what_is_done_to_a_pool_is_told(colour, conninfo, log):
    async with colour.pool(conninfo, min_size=1, max_size=2, name="mine") as pool:
        await at_rest(pool, 1)
        log.clear()
        await result(pool.resize(1, 3))
        await result(pool.drain())
        await result(pool.drain(over=30))

        assert [
            "mine: resized to min_size=1, max_size=3",
            "mine: draining",
            "mine: draining over 30 s",
        ] == lines(log, "edgepool.pool")


async def test_a_lost_connection_is_told_with_its_replacement(
    colour, conninfo, sessions, log
):
    async with colour.pool(conninfo, min_size=1) as pool:
        await told(log, "edgepool.connect", 1)
        log.clear()
        sessions.terminate()
        await lend(pool)
        await told(log, "edgepool.connect", 1)

        assert len(lines(log, "edgepool.retire")) == 2  # found, closing
        assert len(lines(log)) == 3
        assert [] == lines(log, level=logging.WARNING)


async def test_what_the_pool_has_to_roll_back_is_told(colour, conninfo, log):
    async with colour.pool(conninfo, min_size=1) as pool:
        await at_rest(pool, 1)
        log.clear()
        conn = await result(pool.getconn())
        await execute(conn, "select 1")
        await result(pool.putconn(conn))
        await at_rest(pool, 1)

        assert len(lines(log)) == 1

        (line,) = lines(log, "edgepool.reset", logging.WARNING)

        assert "rolling back" in line


async def test_every_line_begins_with_the_pools_name(colour, conninfo, sessions, log):
    async with colour.pool(conninfo, min_size=2, name="mine") as pool:
        await at_rest(pool, 2)
        sessions.terminate()
        await lend(pool)
        await result(pool.drain())
        await result(pool.resize(1, 2))
        await eventually(lambda: pool.statistics().connects >= 4)

    assert lines(log)
    assert [] == [line for line in lines(log) if not line.startswith("mine: ")]


@pytest.mark.filterwarnings("ignore:.*was deleted while still open")
@pytest.mark.parametrize("state", ["in a transaction", "in mid-operation"])
async def test_lines_about_returns_begin_with_the_pools_name_too(
    colour, conninfo, log, state
):
    async with colour.pool(conninfo, min_size=1, name="mine") as pool:
        conn = await result(pool.getconn())
        if state == "in a transaction":
            await execute(conn, "select 1")
        else:
            conn.pgconn.send_query(b"select 1")
        await result(pool.putconn(conn))
        await at_rest(pool, 1)

    (line,) = lines(log, "edgepool.reset")

    assert line.startswith("mine: ")


# --- outages --------------------------------------------------------------------------


async def test_an_outage_is_one_warning_and_its_end_is_one_line(
    colour, own_server, log
):
    server = own_server()
    async with colour.pool(server.conninfo, min_size=1, name="mine") as pool:
        for _ in range(2):
            await at_rest(pool, 1)
            await beside(server.stop)
            log.clear()
            before = connect_errors(pool)
            served = spawn(lend, pool)
            await eventually(lambda b=before: connect_errors(pool) >= b + 8)
            (warning,) = lines(log, level=logging.WARNING)

            assert warning.startswith("mine: cannot connect: ")
            assert "refused" in warning

            log.clear()
            await beside(server.start)
            await served
            await eventually(
                lambda: (
                    lines(log)[-1:]
                    and lines(log)[-1].startswith("mine: connected again after ")
                )
            )

            # Nothing more of it, unless it found the server starting up.
            assert len(lines(log, level=logging.WARNING)) <= 1


class Slow(logging.Handler):
    """Takes as long for the first line as it takes to get another one."""

    def __init__(self):
        super().__init__()
        self.levels = []
        self.second = threading.Event()

    def handle(self, record):  # without the lock that others would wait for
        self.levels.append(record.levelno)
        if len(self.levels) > 1:
            self.second.set()
        return self.second.wait(PATIENCE)


def test_connects_that_fail_at_the_same_time_are_one_warning(log):
    slow = Slow()
    logger = logging.getLogger("edgepool.connect")
    logger.addHandler(slow)
    try:
        with ConnectionPool("host=127.0.0.1 port=1", min_size=2):
            slow.second.wait(PATIENCE)
    finally:
        logger.removeHandler(slow)

    assert slow.levels.count(logging.WARNING) == 1


async def test_an_outage_of_two_faces_is_not_a_flood_of_warnings(
    colour, own_server, log
):
    servers = [own_server(), own_server()]
    for server in servers:
        server.stop()
    attempts = []

    async def conninfo():
        attempts.append(servers[len(attempts) % 2].conninfo)
        return attempts[-1]

    async with colour.pool(colour.callback(conninfo), min_size=1) as pool:
        await eventually(lambda: connect_errors(pool) >= 12)

        assert len(lines(log, level=logging.WARNING)) <= 2


# --- secrets --------------------------------------------------------------------------

# Not to be found in this file, which tracebacks quote.
SECRET = "".join(reversed("4377arbeZ"))


class Watch:
    """Everything that a pool shows of itself, to be searched for the secret."""

    def __init__(self, log):
        self._log = log
        self._seen = []

    def see(self, *things):
        for thing in things:
            self._seen += [str(thing), repr(thing)]
            if isinstance(thing, BaseException):
                # As a logger or a crash would print it, with causes and contexts.
                self._seen += traceback.format_exception(thing)
                self._see_within(thing)

    def _see_within(self, error):
        """See what a service that errors are reported to may show beside."""
        while error is not None:
            self._seen.append(str(error))
            for frame, _ in traceback.walk_tb(error.__traceback__):
                if frame.f_globals["__name__"].startswith("edgepool"):
                    self._seen.append(repr(frame.f_locals))
            error = error.__cause__ or error.__context__

    async def watch(self, pool):
        self.see(pool, pool.statistics(), pool.get_stats())

    @property
    def betrayals(self):
        self.see(self._log.text, *(record.args for record in self._log.records))
        return [text for text in self._seen if SECRET in text]


@pytest.fixture
def watch(log):
    return Watch(log)


def given(way, colour, role, password):
    """Make the arguments that bring a password in, in one of several ways."""
    whole = role.conninfo(password=password)
    bare = role.conninfo()

    async def conninfo():
        return whole

    async def kwargs():
        return {"password": password}

    return {
        "conninfo": {"conninfo": whole},
        "kwargs": {"conninfo": bare, "kwargs": {"password": password}},
        "conninfo callable": {"conninfo": colour.callback(conninfo)},
        "kwargs callable": {"conninfo": bare, "kwargs": colour.callback(kwargs)},
    }[way]


ways = pytest.mark.parametrize(
    "way", ["conninfo", "kwargs", "conninfo callable", "kwargs callable"]
)


@ways
async def test_a_password_that_works_is_not_shown(
    colour, role, sessions, watch, log, way
):
    role.set_password(SECRET)
    async with colour.pool(**given(way, colour, role, SECRET), min_size=1) as pool:
        await lend(pool)
        conn = await result(pool.getconn())
        await execute(conn, "select 1")
        await watch.watch(pool)
        error, _ = await borrow_error(pool, 0.01)
        watch.see(error)
        await result(pool.putconn(conn))
        with pytest.raises(ValueError, match="returned already") as caught:
            await result(pool.putconn(conn))
        watch.see(caught.value)
        await at_rest(pool, 1)
        await watch.watch(pool)
    await watch.watch(pool)
    watch.see(await borrow_error(pool))

    assert len(lines(log)) >= 4
    assert [] == watch.betrayals


@ways
async def test_a_wrong_password_is_not_shown(colour, role, watch, log, way):
    async with colour.pool(**given(way, colour, role, SECRET), min_size=1) as pool:
        error, _ = await borrow_error(pool)
        watch.see(error)
        await watch.watch(pool)

    assert isinstance(error, ConnectFailed)
    assert "password authentication failed" in log.text
    assert [] == watch.betrayals


@pytest.mark.parametrize("way", ["conninfo", "kwargs"])
async def test_a_password_is_not_shown_in_an_outage(colour, role, watch, log, way):
    arguments = given(way, colour, role, SECRET)
    arguments["conninfo"] += " port=1"
    async with colour.pool(**arguments, min_size=1) as pool:
        error, _ = await borrow_error(pool, 0.1)
        watch.see(error)
        await watch.watch(pool)

    assert isinstance(error.__cause__, psycopg.OperationalError)
    assert lines(log, level=logging.WARNING)
    assert [] == watch.betrayals


@pytest.mark.parametrize(
    "unparsable",
    [
        "host=127.0.0.1 password={} nonsense",
        "host=127.0.0.1 password=my {}",
        "host=127.0.0.1 password='{}",
        'host=127.0.0.1 password=my a"{}"b',
        'host=127.0.0.1 password=my "{}',
        "host=127.0.0.1 password=my {}=1",
        "postgresql://app:{}@[::1/db",
        "postgresql://app:{}%zz@127.0.0.1/db",
        "postgresql://app:{} @127.0.0.1/db",
        "postgresql://app:{}@127.0.0.1/db?nonsense",
        "postgresql://app:{}/x@127.0.0.1/db",
        # An @ in the password that should be %40: the rest is taken for the host.
        "postgresql://app:my@{}@127.0.0.1/db",
    ],
)
async def test_what_cannot_be_parsed_is_not_shown(colour, watch, log, unparsable):
    conninfo = unparsable.format(SECRET)
    async with colour.pool(conninfo, min_size=1) as pool:
        error, _ = await borrow_error(pool, 0.1)
        watch.see(error)
        await watch.watch(pool)

    assert lines(log, level=logging.WARNING)
    assert [] == watch.betrayals


async def test_invalid_arguments_do_not_show_the_password(colour, conninfo, watch, log):
    kwargs = {"password": SECRET, "no_such_option": SECRET}
    async with colour.pool(conninfo, min_size=1, kwargs=kwargs) as pool:
        error, _ = await borrow_error(pool)
        watch.see(error)

    assert "no_such_option" in str(error.__cause__)
    assert [] == watch.betrayals


async def test_a_failing_check_does_not_show_the_password(
    colour, role, watch, log, guarded
):
    role.set_password(SECRET)
    conninfo = role.conninfo(password=SECRET)
    failures = 3

    async def check(conn):
        nonlocal failures
        failures -= 1
        if failures > 0:
            await execute(conn, "select 1 / 0")

    async with colour.pool(conninfo, min_size=1, check=colour.callback(check)) as pool:
        await lend(pool)
        await watch.watch(pool)

    assert "division by zero" in log.text
    assert [] == watch.betrayals
