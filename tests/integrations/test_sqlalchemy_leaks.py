"""What the recipe in SQLAlchemy's documentation loses, and edgepool's pools do not.

It is `NullPool` with `creator=pool.getconn`, and `close_returns` of psycopg_pool.
That it fails is shown too: else there would be nothing to see here.
"""

from __future__ import annotations

import gc
import warnings

import pytest
from psycopg_pool import PoolTimeout
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError, SAWarning

from support.engines import closed, driver, engine, pid, stock, told, wait_until
from support.parity import PATIENCE

SIZE = 2
END = text("select pg_terminate_backend(pg_backend_pid())")


def recipe(colour, conninfo):
    """Make an engine by the recipe, and what there is to be closed."""
    made, pool = stock(colour, conninfo, min_size=SIZE, max_size=SIZE)
    pool.timeout = 0.2  # from now on: all are open
    return made, lambda: closed(pool)


def edgepools(colour, conninfo):
    made = engine(colour, conninfo, max_size=SIZE, timeout=PATIENCE)
    return made, made.dispose


each_way = pytest.mark.parametrize(
    ("make", "holds"), [(recipe, False), (edgepools, True)], ids=["recipe", "edgepool"]
)


def break_one(made):
    """Check a connection out, and lose it."""
    with made.connect() as conn, pytest.raises(OperationalError) as caught:
        conn.execute(END)
    assert caught.value.connection_invalidated


def is_exhausted(made):
    """Check a connection out, in vain; tell whether there was none in time."""
    with pytest.raises(OperationalError) as caught:
        pid(made)
    return isinstance(caught.value.orig, PoolTimeout)


@each_way
@told
def test_a_connection_that_breaks_while_it_is_lent_gives_its_place_back(
    colour, conninfo, make, holds
):
    made, close = make(colour, conninfo)
    for _ in range(SIZE):
        break_one(made)

    if holds:
        assert pid(made)
    else:
        assert is_exhausted(made)
    close()


@each_way
@told
def test_a_connection_is_connected_once(colour, conninfo, make, holds):
    made, close = make(colour, conninfo)
    connected = []
    event.listen(made, "connect", lambda *_: connected.append(1))

    pids = {pid(made) for _ in range(20)}
    with made.connect() as conn:
        handlers = len(driver(conn)._notice_handlers)
    close()

    # The dialect adds a handler each time that it is told of a new connection.
    if holds:
        assert (1, 1, 1) == (len(pids), len(connected), handlers)
    else:
        assert 21 == len(connected)
        assert handlers > 5


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@each_way
@told
def test_a_connection_that_is_forgotten_gives_its_place_back(
    colour, conninfo, make, holds
):
    """For asyncio, where the garbage collector cannot wait for a rollback."""
    made, close = make(colour, conninfo)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SAWarning)
        for _ in range(SIZE):
            conn = made.connect()
            conn.execute(text("select 1"))
            del conn
            gc.collect()
    told_of = [w for w in caught if w.category is SAWarning]

    assert SIZE * colour.asynchronous == len(told_of)

    def all_are_back():
        gc.collect()  # one that was found in a cycle is still in another
        return made.pool.checkedout() == 0

    if holds:
        wait_until(all_are_back)
    if holds or not colour.asynchronous:
        assert pid(made)
    else:
        assert is_exhausted(made)
    close()
