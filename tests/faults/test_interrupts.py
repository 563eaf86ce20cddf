"""An exception at every line of a borrow, a body, a return: nobody else notices.

The interrupted thread gets its exception. Everybody else goes on: no place is lost, who
waits is served, and the background goes on working. What was in the hands of the
interrupted frames only, the garbage collector brings back.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from functools import partial
from textwrap import dedent

import pytest

from edgepool import NestedBorrow, Pool, PoolTimeout
from edgepool._drivers import events
from edgepool.testing import FakeAdapter, FakeServer
from support.interrupt import SOURCES, Interruption, at_every_line
from support.parity import poll_until
from support.rounds import rounds

pytestmark = [
    pytest.mark.usefixtures("own_background"),
    # Between making a coroutine and its first step, too.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited"),
    # What was in the hands of the interrupted frames only.
    pytest.mark.filterwarnings("ignore:.*was dropped instead of returned"),
]

# For how long a test waits for what must have happened long ago, in seconds.
PATIENCE = 2.0

NEVER = float("inf")


# Whatever the pool could tell by an event is a line that is interrupted.
until = partial(poll_until, within=PATIENCE)


def conserved(pool):
    """Assert that a pool that nobody uses has kept all that it had."""

    def at_rest():
        gc.collect()
        s = pool.statistics()
        return s.waiting == s.in_use == 0 and s.size == s.idle

    until(at_rest, otherwise=lambda: str(pool.statistics()))
    leases = [pool.borrow(PATIENCE) for _ in range(pool.max_size)]
    sessions = {lease.__enter__() for lease in leases}

    assert pool.max_size == len(sessions)

    for lease in leases:
        lease.__exit__()
    until(at_rest, otherwise=lambda: str(pool.statistics()))


class Stage:
    """A pool on a fake server, and others who use it."""

    def __init__(self, **settings):
        self.server = FakeServer()
        settings = {"min_size": 1, "max_size": 2, "open": True} | settings
        # Who is interrupted mostly has what others have, and asks for it again.
        settings = {"nested": "wait"} | settings
        self.pool = Pool(FakeAdapter(self.server), **settings)
        # How far the pool's clock is ahead of the housekeeper's.
        self.ahead = 0.0
        self.pool._engine.clock = lambda: time.monotonic() + self.ahead
        self.pool.wait()
        self.most = self.pool.max_size
        self._others = []

    def other(self, target):
        """Run a function in another thread; its error is the test's."""
        errors = []

        def run():
            try:
                target()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        self._others.append((thread, errors))

    def all_borrowed(self):
        leases = [self.pool.borrow() for _ in range(self.pool.max_size)]
        for lease in leases:
            lease.__enter__()
        return leases

    def waiting(self, count):
        until(lambda: self.pool.statistics().waiting == count)

    def interrupted(self, act, interruption):
        """Do something that is interrupted, unless it has not so many lines."""
        raised = False
        with interruption.here():
            try:
                act()
            except Interruption:
                raised = True

        assert raised == (interruption.at is not None)

        gc.collect()

    def end(self):
        for thread, errors in self._others:
            thread.join(PATIENCE)

            assert not thread.is_alive()
            assert [] == errors

        conserved(self.pool)

        assert self.pool.statistics().size == len(self.server.sessions)
        assert self.server.peak <= self.most
        assert [] == self.server.mistakes

        started = time.monotonic()
        self.pool.close()

        assert time.monotonic() - started < 2.0
        assert () == self.server.sessions


def lend(pool, soil=None):
    with pool.borrow(PATIENCE) as session:
        if soil is not None:
            soil(session)


# --- borrowing ------------------------------------------------------------------------


def interrupt_borrow(settings, prepare=lambda stage: None):
    def scenario(interruption):
        stage = Stage(**settings)
        prepare(stage)
        stage.interrupted(lambda: lend(stage.pool), interruption)
        stage.end()

    return at_every_line(scenario)


def test_a_borrow_that_connects_may_be_interrupted_at_every_line():
    assert interrupt_borrow({"min_size": 0, "check_after": NEVER}) > 100


def test_a_borrow_with_a_check_may_be_interrupted_at_every_line():
    assert interrupt_borrow({"check_after": 0.0}) > 50


def test_a_borrow_with_a_failing_check_may_be_interrupted_at_every_line():
    def prepare(stage):
        # An error of its own: errors keep alive who has seen them.
        stage.server.fail("check", ConnectionResetError("it is dead"))

    assert interrupt_borrow({"check_after": 0.0, "min_size": 2}, prepare) > 100


def test_a_borrow_of_the_dead_may_be_interrupted_at_every_line():
    def prepare(stage):
        stage.server.kill()
        stage.ahead = 1.0  # it is probed again

    assert interrupt_borrow({"check_after": NEVER, "min_size": 2}, prepare) > 100


def test_a_borrow_of_the_overdue_may_be_interrupted_at_every_line():
    def prepare(stage):
        stage.ahead = 100.0

    settings = {"check_after": NEVER, "max_lifetime": 100.0}

    assert interrupt_borrow(settings, prepare) > 20


def test_a_borrow_that_waits_may_be_interrupted_at_every_line():
    def scenario(interruption):
        stage = Stage(max_size=1, check_after=NEVER)
        (lease,) = stage.all_borrowed()
        done = threading.Event()

        def give_back_when_somebody_waits():
            until(lambda: done.is_set() or stage.pool.statistics().waiting)
            lease.__exit__()

        stage.other(give_back_when_somebody_waits)
        stage.interrupted(lambda: lend(stage.pool), interruption)
        done.set()
        stage.end()

    assert at_every_line(scenario) > 50


def test_a_borrow_that_times_out_may_be_interrupted_at_every_line():
    def scenario(interruption):
        stage = Stage(max_size=1, check_after=NEVER)
        (lease,) = stage.all_borrowed()

        def borrow():
            with pytest.raises(PoolTimeout):
                stage.pool.borrow(0.0).__enter__()

        stage.interrupted(borrow, interruption)
        lease.__exit__()
        stage.end()

    assert at_every_line(scenario) > 30


def test_a_refused_nested_borrow_may_be_interrupted_at_every_line():
    def scenario(interruption):
        stage = Stage(max_size=1, check_after=NEVER, nested="error")
        (lease,) = stage.all_borrowed()

        def borrow():
            with pytest.raises(NestedBorrow):
                stage.pool.borrow(PATIENCE).__enter__()

        stage.interrupted(borrow, interruption)
        lease.__exit__()
        stage.end()

    assert at_every_line(scenario) > 100


def test_who_waits_behind_an_interrupted_borrower_is_served():
    def scenario(interruption):
        stage = Stage(max_size=1, check_after=NEVER)
        (lease,) = stage.all_borrowed()
        done = threading.Event()

        def give_back():
            until(lambda: done.is_set() or stage.pool.statistics().waiting)
            stage.other(lambda: lend(stage.pool))
            until(lambda: done.is_set() or stage.pool.statistics().waiting == 2)
            lease.__exit__()

        stage.other(give_back)
        stage.interrupted(lambda: lend(stage.pool), interruption)
        done.set()
        stage.end()

    assert at_every_line(scenario) > 50


# --- returning ------------------------------------------------------------------------


def soil(session):
    session.dirty = True


def despair(session):
    session.dirty = session.hopeless = True


def hang_up(session):
    session.close()


def interrupt_return(soil, waiters=0, **settings):
    def scenario(interruption):
        settings.setdefault("max_size", 1)
        stage = Stage(**{"check_after": NEVER} | settings)
        lease, *others = stage.all_borrowed()
        if soil is not None:
            soil(lease._entry.resource)
        for number in range(waiters):
            stage.other(lambda: lend(stage.pool))
            stage.waiting(number + 1)
        give_back = lease.__exit__
        del lease
        stage.interrupted(give_back, interruption)
        del give_back
        gc.collect()
        for other in others:
            other.__exit__()
        stage.end()

    return at_every_line(scenario)


@pytest.mark.parametrize("soil", [soil, despair, hang_up])
def test_the_return_of_what_is_not_clean_may_be_interrupted_at_every_line(soil):
    assert interrupt_return(soil) > 30


@pytest.mark.parametrize("soil", [None, soil, despair, hang_up])
def test_who_waits_is_served_though_the_return_is_interrupted(soil):
    assert interrupt_return(soil, waiters=2, max_size=1) > 30


def test_a_return_beyond_max_size_may_be_interrupted_at_every_line():
    def scenario(interruption):
        stage = Stage(max_size=2, check_after=NEVER)
        first, second = stage.all_borrowed()
        stage.pool.resize(1, 1)
        stage.interrupted(first.__exit__, interruption)
        del first
        gc.collect()
        second.__exit__()
        stage.end()

    assert at_every_line(scenario) > 30


# --- the pool as a whole --------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        lambda pool: pool.drain(),
        lambda pool: pool.check(),
        lambda pool: pool.resize(2, 2),
        lambda pool: pool.resize(1, 1),
        lambda pool: pool.statistics(),
        lambda pool: pool.wait(),
        lambda pool: setattr(pool, "max_idle", 0.5),
    ],
    ids=["drain", "check", "grow", "shrink", "statistics", "wait", "configure"],
)
def test_what_is_done_to_the_pool_may_be_interrupted_at_every_line(act):
    def scenario(interruption):
        stage = Stage(min_size=2, check_after=NEVER)
        stage.interrupted(lambda: act(stage.pool), interruption)
        stage.end()

    assert at_every_line(scenario) > 0


def test_a_close_may_be_interrupted_at_every_line_and_repeated():
    def scenario(interruption):
        stage = Stage(min_size=2, check_after=NEVER)
        stage.interrupted(stage.pool.close, interruption)
        gc.collect()
        started = time.monotonic()
        stage.pool.close()

        assert time.monotonic() - started < 2.0
        assert () == stage.server.sessions

        stage.pool.open()
        stage.end()

    assert at_every_line(scenario) > 50


def test_an_open_may_be_interrupted_at_every_line_and_repeated():
    def scenario(interruption):
        stage = Stage(min_size=2, check_after=NEVER)
        stage.pool.close()
        stage.interrupted(stage.pool.open, interruption)
        gc.collect()
        stage.pool.open(wait=True, timeout=PATIENCE)
        stage.end()

    assert at_every_line(scenario) > 30


# --- the background -------------------------------------------------------------------


def in_background(name, act, **settings):
    def scenario(interruption):
        stage = Stage(**{"check_after": NEVER} | settings)
        events.workers.rest(id(stage.pool._engine))  # others start, to be traced
        with interruption.in_threads(name):
            act(stage)
        stage.end()

    return at_every_line(scenario)


@pytest.mark.parametrize("soil", [soil, despair, hang_up])
def test_a_worker_may_be_interrupted_at_every_line_of_a_return(soil):
    def act(stage):
        lend(stage.pool, soil)
        # Not before it has been at it, and nobody but the collector knows of the lost.
        until(lambda: gc.collect() * 0 or stage.pool.statistics().idle)

    assert in_background("edgepool-worker", act, max_size=1) > 20


def test_a_worker_may_be_interrupted_at_every_line_of_a_connect():
    def act(stage):
        stage.other(lambda: lend(stage.pool))
        until(lambda: gc.collect() * 0 or stage.pool.statistics().idle)

    assert in_background("edgepool-worker", act, min_size=0, max_size=1) > 20


def test_the_housekeeper_may_be_interrupted_at_every_line():
    def act(stage):
        def is_empty():
            stage.pool.max_lifetime = 100.0  # a call, if the thread has to start anew
            gc.collect()
            return stage.pool.statistics().size == 0

        stage.pool.max_idle = 0.003
        lend(stage.pool)
        until(is_empty)
        stage.pool.max_idle = 100.0

    assert in_background("edgepool-housekeeper", act, min_size=0) > 10


# --- signals, as they come ------------------------------------------------------------

SIGNALS = """
    import signal, sys, threading
    from random import Random
    from edgepool import Pool
    from edgepool.testing import FakeAdapter, FakeServer


    class Enough(BaseException):
        pass


    def handler(signal_number, frame):
        while frame is not None:
            # The fake server does not stand to be torn, and what is raised in a
            # callback of the garbage collector, nobody gets: a moment later, then.
            if frame.f_code.co_filename == fakes or frame.f_code.co_name == "_drop":
                signal.setitimer(signal.ITIMER_REAL, 0.00001)
                return
            frame = frame.f_back
        raise Enough


    fakes = sys.modules[FakeServer.__module__].__file__
    signal.signal(signal.SIGALRM, handler)
    dice = Random(1)
    server = FakeServer()
    sizes = {"min_size": 1, "max_size": 2}
    pool = Pool(FakeAdapter(server), **sizes, open=True, check_after=0.0)
    done = threading.Event()


    def others():
        while not done.wait(0.0002):
            with pool.borrow(20.0) as session:
                session.dirty = True


    def work():
        for _ in range(20):
            with pool.borrow(20.0) as session:
                session.dirty = dice.random() < 0.5


    crowd = [threading.Thread(target=others) for _ in range(3)]
    for thread in crowd:
        thread.start()
    struck = 0
    for _ in range(int(sys.argv[1])):
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.00001 + dice.random() * 0.002)
            work()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Enough:
            struck += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    done.set()
    for thread in crowd:
        thread.join(30.0)
        assert not thread.is_alive(), "somebody was forgotten"
    print(struck)
"""

LOOK = """
    import gc, time

    for _ in range(2000):  # no event tells when the collector has found all
        gc.collect()
        s = pool.statistics()
        if s.waiting == s.in_use == 0 and s.size == s.idle:
            break
        time.sleep(0.005)
    else:
        raise AssertionError(s)
    leases = [pool.borrow(10.0) for _ in range(2)]
    assert len({lease.__enter__() for lease in leases}) == 2
    for lease in leases:
        lease.__exit__()
    assert len(server.sessions) == pool.statistics().size
    pool.close()
    assert not server.sessions
    assert server.peak <= 2, server.peak
    assert not server.mistakes, server.mistakes
    print("the end")
"""


def test_signals_at_random_moments_lose_nothing():
    program = dedent(SIGNALS) + dedent(LOOK)
    run = subprocess.run(
        [sys.executable, "-c", program, str(rounds(500))],
        env=os.environ | {"PYTHONPATH": SOURCES},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100.0,
    )

    assert "the end" in run.stdout, run.stderr
    assert int(run.stdout.split()[0]) > 50


# --- within an event of the same thread -----------------------------------------------


def test_a_finaliser_may_return_a_session_in_the_midst_of_anything():
    # The collector may run it at any line; so it is run at each.
    def scenario(interruption):
        stage = Stage(min_size=2, max_size=3, check_after=NEVER)
        lease = stage.pool.borrow()
        lease.__enter__().dirty = True
        returned = []

        def finaliser():
            returned.append(lease.__exit__())

        interruption.act = finaliser
        with interruption.here():
            stage.pool.drain()
            lend(stage.pool, soil)
        if not returned:
            finaliser()
        stage.end()

    assert at_every_line(scenario) > 100
