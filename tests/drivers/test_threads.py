"""What is particular to threads: Ctrl-C, which threads there are, and races.

Where it matters how threads interleave they take turns (turns.py), in virtual time;
where it must not matter, they are as real as can be.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from drivers.world import ThreadWorld

import edgepool
from edgepool import Pool, PoolTimeout
from edgepool._drivers import events, workers
from edgepool._drivers.housekeeper import Housekeeper
from edgepool._drivers.workers import LINGER, Workers
from edgepool.testing import FakeAdapter, FakeServer

in_turns = pytest.mark.parametrize("world", [ThreadWorld], indirect=True, ids=["turns"])

# For how long a test waits for what must have happened long ago, in seconds.
PATIENCE = 30.0
NEVER = float("inf")


def make_pool(server, **settings):
    settings = {"min_size": 1, "open": True, "nested": "wait"} | settings
    return Pool(FakeAdapter(server), **settings)


def lend(pool, timeout=PATIENCE):
    with pool.borrow(timeout) as session:
        return session.number


def own_threads():
    return [t for t in threading.enumerate() if t.name.startswith("edgepool")]


# --- Ctrl-C ---------------------------------------------------------------------------


@pytest.fixture
def when_waiting():
    """Send this thread a signal as soon as somebody waits for a connection."""
    senders = []

    def start(pool, signal_number):
        def send():
            glance = threading.Event()
            while pool.statistics().waiting == 0:
                glance.wait(0.001)
            signal.pthread_kill(threading.main_thread().ident, signal_number)

        senders.append(threading.Thread(target=send))
        senders[-1].start()

    yield start
    for sender in senders:
        sender.join()


def test_ctrl_c_ends_a_wait(when_waiting):
    pool = make_pool(FakeServer())
    with pool.borrow():
        when_waiting(pool, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            lend(pool)

        assert 0 == pool.statistics().waiting

    assert 1 == lend(pool, timeout=0.0)

    pool.close()


class Enough(BaseException):
    """As KeyboardInterrupt, SystemExit or gevent's Timeout: not an `Exception`."""


def test_what_was_handed_to_who_is_interrupted_by_a_signal_is_given_back(when_waiting):
    pool = make_pool(FakeServer())
    lease = pool.borrow()
    lease.__enter__()

    def handler(signal_number, frame):
        lease.__exit__()  # so that this very thread is served, while it waits
        raise Enough

    before = signal.signal(signal.SIGUSR1, handler)
    when_waiting(pool, signal.SIGUSR1)
    try:
        with pytest.raises(Enough):
            lend(pool)
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert 0 == pool.statistics().in_use
    assert 1 == lend(pool, timeout=0.0)

    pool.close()


@in_turns
async def test_an_interruption_in_a_check_outlives_its_timeout(world):
    # In the very moment in which the check is cut off, Ctrl-C comes.
    class Adapter(FakeAdapter):
        def abort(self, session):
            super().abort(session)
            world.interrupt(borrower)

    pool = Pool(Adapter(world.server), min_size=1, open=True)
    world.pools.append(pool)
    world.allowed = 1
    await world.quiet()
    world.server.hang("check")

    borrower = world.start(world.borrow(pool, timeout=2.0))

    assert isinstance(await borrower.error(), KeyboardInterrupt)


class InterruptionAtCall:
    """Raises at the beginning of the nth call of a function of edgepool's or its locks.

    Attributes:
        at: the name of that function; None if there were not so many calls.
    """

    def __init__(self, nth):
        self._nth = nth
        self._files = (str(Path(edgepool.__file__).parent), threading.__file__)
        self.at = None

    def __enter__(self):
        sys.settrace(self._trace)

    def __exit__(self, *exc_info):
        sys.settrace(None)

    def _trace(self, frame, event, argument):
        if frame.f_code.co_filename.startswith(self._files):
            self._nth -= 1
            if self._nth == 0:
                self.at = frame.f_code.co_name
                sys.settrace(None)
                raise Enough


# --- which threads there are ----------------------------------------------------------


def names(world):
    return sorted(thread.name for thread in world.left_over())


@in_turns
async def test_a_pool_that_is_not_used_has_no_thread(world):
    world.pool(open=None)
    world.pool(open=False)
    await world.quiet()

    assert [] == names(world)


@in_turns
async def test_an_idle_pool_for_which_no_clock_ticks_has_no_thread(world):
    await world.open_pool(min_size=3, max_lifetime=NEVER, max_idle=NEVER)

    await world.sleep(1.0)

    assert [] == names(world)


@in_turns
async def test_one_thread_keeps_time_for_all_pools(world):
    for _ in range(10):
        await world.open_pool(min_size=2, max_size=5, check_after=30.0)

    for _ in range(20):
        await world.sleep(31.0)

        assert ["edgepool-housekeeper"] == names(world)


@in_turns
async def test_the_thread_that_keeps_time_leaves_with_the_last_pool(world):
    first, second = await world.open_pool(), await world.open_pool()
    await world.sleep(1.0)

    first.close()

    assert ["edgepool-housekeeper"] == names(world)

    second.close()

    assert [] == names(world)


@in_turns
async def test_the_thread_that_keeps_time_is_not_woken_by_each_check(
    world, monkeypatch
):
    class Gate:
        def __init__(self, gate):
            self.acquire, self.locked = gate.acquire, gate.locked
            self._release = gate.release

        def release(self):
            wakes.append(world.now)
            self._release()

    wakes = []
    world.server.delay("check", 0.001)
    pool = await world.open_pool(check_after=0.0, max_lifetime=3600.0)
    keeper = events.housekeeper
    monkeypatch.setattr(keeper, "_gate", Gate(keeper._gate))
    for _ in range(300):  # more than deadlines that are cancelled and not yet swept out
        await world.lend(pool)
        await world.sleep(0.01)

    assert 300 == world.server.begun("check")
    assert len(wakes) <= 1


@in_turns
async def test_workers_are_shared_and_leave_when_there_is_nothing_to_do(world):
    pools = [world.pool(max_lifetime=NEVER, open=True) for _ in range(3)]
    await world.quiet()

    assert ["edgepool-worker"] * 3 == names(world)

    for pool in pools:
        held = await world.borrow(pool)
        held.session.dirty = True
        await held.give_back()
        await world.sleep(LINGER * 0.9)

    assert ["edgepool-worker"] == names(world)
    assert 3 == world.started("edgepool-worker")

    await world.sleep(LINGER)

    assert [] == names(world)


@in_turns
async def test_each_connect_that_hangs_has_a_worker_and_hinders_no_other(world):
    world.server.hang("connect")
    world.pool(min_size=3, open=True)
    await world.sleep(1.0)
    world.server.release("connect", 0)
    world.server.delay("connect", 0.5)

    assert 3 == world.server.under_way("connect")
    assert ["edgepool-worker"] * 3 == names(world)


@in_turns
@pytest.mark.parametrize("in_vain", [1, 2, 5])
async def test_a_thread_that_cannot_be_started_costs_no_place(
    world, monkeypatch, in_vain
):
    # At a limit of the system, or (Python 3.12) when the interpreter is about to exit.
    refusals = iter([RuntimeError("can't start new thread")] * in_vain)
    Thread = workers.Thread

    class Scarce:
        def __init__(self, **arguments):
            self._thread = Thread(**arguments)
            self.join, self.is_alive = self._thread.join, self._thread.is_alive

        def start(self):
            for refusal in refusals:
                world._turns.threads.remove(self._thread)
                raise refusal
            self._thread.start()

    pool = await world.open_pool(min_size=0, max_size=1, max_idle=1.0)
    held = await world.borrow(pool)
    held.session.dirty = True
    await world.sleep(1.0)
    monkeypatch.setattr(workers, "Thread", Scarce)

    await held.give_back()
    for _ in range(in_vain):
        with suppress(PoolTimeout, RuntimeError):
            await world.lend(pool, timeout=5.0)
        await world.sleep(5.0)

    await world.lend(pool, timeout=5.0)


def test_no_thread_is_left_after_close(monkeypatch):
    monkeypatch.setattr(events, "housekeeper", Housekeeper())
    monkeypatch.setattr(events, "workers", Workers())
    monkeypatch.setattr(workers, "PATIENCE", PATIENCE)
    gc.collect()  # pools of other tests, which would begin to end in this one
    others = own_threads()
    server = FakeServer()
    for _ in range(100):
        pool = make_pool(server, min_size=4)
        pool.wait()
        with pool.borrow() as session:
            session.dirty = True

        pool.close()

        assert [] == [thread for thread in own_threads() if thread not in others]


def test_an_abandoned_pool_is_collected():
    server = FakeServer()
    pool = make_pool(server)
    pool.wait()
    lend(pool)
    gone = weakref.ref(pool)
    for thread in own_threads():
        if thread.name == "edgepool-worker":  # it has its last job in mind for a moment
            thread.join(PATIENCE)

    del pool
    gc.collect()

    assert gone() is None


# --- races, by dice: the same schedule each time --------------------------------------


def test_a_crowd_is_served_whatever_the_schedule(chaos):
    async def crowd(world, dice):
        pool = world.pool(min_size=1, max_size=dice.randint(1, 3), check_after=NEVER)
        pool.open()
        lent_to = {}

        async def use(me):
            for _ in range(3):
                held = await world.borrow(pool, timeout=1000.0)

                assert me == lent_to.setdefault(held.session, me)

                if dice.random() < 0.3:
                    await world.sleep(0.001)
                held.session.dirty = dice.random() < 0.3
                del lent_to[held.session]
                await held.give_back()

        for running in [world.start(use(n)) for n in range(5)]:
            await running.outcome()
        await world.sleep(1.0)
        s = pool.statistics()

        assert (15, 0, 0, 0) == (s.requests, s.requests_errors, s.in_use, s.waiting)
        assert s.size == s.idle == len(world.server.sessions)

    chaos(crowd, range(100))


def test_who_gives_up_loses_nothing_whatever_the_schedule(chaos):
    async def impatience(world, dice):
        pool = world.pool(min_size=1, check_after=NEVER)
        pool.open()

        async def use():
            for _ in range(4):
                try:
                    held = await world.borrow(pool, dice.choice([0.0, 0.001, 1000.0]))
                except PoolTimeout:
                    continue
                await world.sleep(0.001)
                await held.give_back()

        for running in [world.start(use()) for _ in range(4)]:
            await running.outcome()
        s = pool.statistics()

        assert (0, 0, 1) == (s.in_use, s.waiting, s.idle)

    chaos(impatience, range(100))


def test_a_pool_is_disturbed_without_a_loss_whatever_the_schedule(chaos):
    async def disturbance(world, dice):
        pool = world.pool(min_size=2, max_size=3, max_idle=0.5, max_lifetime=1.0)
        pool.open()
        done = []

        async def use():
            for _ in range(4):
                held = await world.borrow(pool, timeout=1000.0)
                if dice.random() < 0.2:
                    held.session.close()
                await world.sleep(0.1)
                await held.give_back()
            done.append(True)

        async def disturb():
            while len(done) < 4:
                kind = dice.randrange(4)
                if kind == 0:
                    pool.drain()
                elif kind == 1:
                    pool.resize(dice.randint(0, 2), dice.randint(2, 3))
                elif kind == 2:
                    world.server.kill(*world.server.sessions[:1])
                else:
                    pool.check()
                await world.sleep(0.05)

        everybody = [world.start(use()) for _ in range(4)]
        for running in [*everybody, world.start(disturb())]:
            await running.outcome()
        pool.resize(3, 3)
        pool.wait(1000.0)
        await world.quiet()
        s = pool.statistics()

        assert (0, 0, 3) == (s.in_use, s.waiting, s.size)

    chaos(disturbance, range(50))


def test_a_pool_is_opened_and_closed_without_a_trace_whatever_the_schedule(chaos):
    async def doors(world, dice):
        pool = world.pool(min_size=2)
        for _ in range(3):
            pool.open()
            if dice.random() < 0.5:
                held = await world.borrow(pool)
                held.session.dirty = True
                await held.give_back()
            pool.close()

            assert [] == names(world)
            assert () == world.server.sessions

    chaos(doors, range(50))


# --- races, with real threads ---------------------------------------------------------


@pytest.fixture
def hasty_switches():
    """Let the interpreter switch threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run_together(*targets):
    """Run functions in threads of their own; raise the first error of any."""
    errors = []
    barrier = threading.Barrier(len(targets))

    def run(target):
        barrier.wait(PATIENCE)
        try:
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[target]) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.usefixtures("hasty_switches")
@pytest.mark.parametrize("size", [1, 3, 8])
def test_no_session_is_lent_to_two_whatever_the_scheduler_does(size):
    server = FakeServer()
    pool = make_pool(server, min_size=size, check_after=NEVER)
    pool.wait()
    lent_to = {}

    def borrow_and_return():
        me = threading.get_ident()
        for _ in range(2000):
            with pool.borrow(PATIENCE) as session:
                assert me == lent_to.setdefault(session, me)
                del lent_to[session]

    run_together(*[borrow_and_return] * 8)
    s = pool.statistics()

    assert (16_000, 0, 0) == (s.requests, s.requests_errors, s.in_use)
    assert size == s.idle == server.connects

    pool.close()

    assert [] == server.mistakes


@pytest.mark.usefixtures("hasty_switches")
def test_nothing_is_lost_whatever_happens_at_the_same_time():
    server = FakeServer()
    pool = make_pool(server, min_size=2, max_size=4)
    lent_to = {}
    done = threading.Event()

    def use(seed):
        dice = Random(seed)
        me = threading.get_ident()
        for _ in range(1500):
            try:
                with pool.borrow(dice.choice([0.0, 0.001, PATIENCE])) as session:
                    assert me == lent_to.setdefault(session, me)
                    session.dirty = dice.random() < 0.2
                    if dice.random() < 0.1:
                        session.close()
                    del lent_to[session]
            except PoolTimeout:
                pass

    def disturb():
        dice = Random(0)
        while not done.wait(0.0005):
            kind = dice.randrange(4)
            if kind == 0:
                pool.drain()
            elif kind == 1:
                pool.resize(dice.randrange(3), dice.randrange(3, 5))
            elif kind == 2:
                server.kill(*server.sessions[:1])
            else:
                pool.check()

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        run_together(*[lambda seed=seed: use(seed) for seed in range(8)])
    finally:
        done.set()
        disturber.join()
    pool.resize(4, 4)
    pool.wait()

    assert 0 == pool.statistics().waiting
    assert server.peak <= 4

    run_together(*[lambda: lend(pool)] * 8)
    pool.close()

    assert [] == server.mistakes
    assert () == server.sessions
