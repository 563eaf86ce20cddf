"""An exception at every line, of borrowers and workers, while the server is watched.

As in test_interrupts.py, but with psycopg's connections: there are never more sessions
than places, and after each interruption nothing is lost and nothing left over.
"""

from __future__ import annotations

import gc
import itertools

import psycopg
import pytest
from soak.sampler import Sampler

from edgepool import ConnectionPool
from edgepool._drivers import events
from support.conservation import conserved
from support.interrupt import Interruption, at_every_line
from support.parity import eventually, run_blocking
from support.rounds import sparsely

pytestmark = [
    pytest.mark.usefixtures("own_background"),
    # Between making a coroutine and its first step, too.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited"),
    # What was in the hands of the interrupted frames only.
    pytest.mark.filterwarnings("ignore:.*was dropped instead of returned"),
]

MOST = 2

_numbers = itertools.count(1)


class Closing(psycopg.Connection):
    """Takes note of whom it tells to end, as a sampler wants it."""

    def close(self):
        self.told.add(self.pgconn.backend_pid)
        super().close()


class Stage:
    """A pool of a real server's, and somebody who counts its sessions."""

    def __init__(self, server):
        self.violations = []
        self.server = server
        self.name = f"soak-interrupts-{next(_numbers)}"  # what a sampler looks for
        self.sampler = Sampler(
            server, MOST, lambda *found: self.violations.append(found)
        )

    def pool(self, **settings):
        kind = type("Telling", (Closing,), {"told": self.sampler.told})
        return ConnectionPool(
            self.server.conninfo_for(application_name=self.name),
            connection_class=kind,
            min_size=1,
            max_size=MOST,
            timeout=5.0,
            **settings,
        )

    def conserved(self, pool):
        gc.collect()
        run_blocking(conserved(pool, self.server, self.name))

        assert [] == self.violations


@pytest.fixture
def stage(server):
    made = Stage(server)
    yield made
    made.sampler.stop()


def use_a_block(pool):
    with pool.connection() as conn:
        conn.execute("select 1")


def commit(pool):
    with pool.connection() as conn:
        conn.autocommit = True


def get_and_put(pool):
    conn = pool.getconn()
    pool.putconn(conn)


def put_in_a_transaction(pool):
    # What is logged of it is kept by pytest, and the connection's object with it.
    conn = pool.getconn()
    conn.execute("select 1")
    pool.putconn(conn)


def put_broken(pool):
    conn = pool.getconn()
    conn.close()
    pool.putconn(conn)


def close(pool):
    pool.getconn().close()


def close_in_a_transaction(pool):
    conn = pool.getconn()
    conn.execute("select 1")
    conn.close()


def use_lazily(pool):
    lease = pool.connection(lazy=True)
    with lease as conn:
        conn.autocommit = True
        conn.cursor().execute("select 1")
        with lease.released():
            pass
        conn.execute("select 1")


def leave_lazily(pool):
    with pool.connection(lazy=True) as conn:
        conn.execute("select 1")


def fetch(pool):
    pool.fetch_value("select 1")


@pytest.mark.parametrize(
    ("act", "settings"),
    [
        (use_a_block, {}),
        (use_lazily, {}),
        (leave_lazily, {}),
        (fetch, {}),
        (commit, {}),
        (get_and_put, {}),
        (get_and_put, {"check": ConnectionPool.check_connection}),
        (put_in_a_transaction, {}),
        (put_broken, {}),
        (close, {"close_returns": True}),
        (close_in_a_transaction, {"close_returns": True}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "-".join(value),
)
def test_a_borrower_may_be_interrupted_at_every_line(stage, act, settings):
    with stage.pool(**settings) as pool:

        def scenario(interruption):
            raised = False
            with interruption.here():
                try:
                    act(pool)
                except Interruption:
                    raised = True

            assert raised == (interruption.at is not None)

            stage.conserved(pool)

        assert at_every_line(scenario, sparsely(5)) > 20


# Of one that was just opened, when not even that it is a pool's was noted.
@pytest.mark.filterwarnings("ignore:.*was deleted while still open")
@pytest.mark.parametrize("settings", [{}, {"reset": "clean"}], ids="-".join)
def test_a_worker_may_be_interrupted_at_every_line(stage, settings):
    with stage.pool(configure=lambda conn: None, **settings) as pool:

        def scenario(interruption):
            events.workers.rest(id(pool._engine))  # others start, to be traced
            with interruption.in_threads("edgepool-worker"):
                put_in_a_transaction(pool)
                put_broken(pool)
                run_blocking(eventually(lambda: gc.collect() * 0 or at_rest(pool)))
            stage.conserved(pool)

        assert at_every_line(scenario, sparsely(11)) > 300


def at_rest(pool):
    now = pool.statistics()
    return now.size == now.idle >= 1
