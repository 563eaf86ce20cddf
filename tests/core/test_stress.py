"""Real threads, switched as often as the interpreter can: the hot pair holds.

Everything that happens here happens by chance; what must not happen is the proof of
`test_interleavings`, here with the driver and its lock around it.
"""

from __future__ import annotations

import sys
import threading
from random import Random

import pytest

from edgepool import Pool, PoolClosed, PoolTimeout, TooManyRequests

SECONDS = 2.0
THREADS = 6


class Thing:
    """A resource that knows who uses it."""

    def __init__(self):
        self.users = []
        self.closed = 0
        self.clean = True


class Things:
    """An adapter for resources that cost nothing."""

    def __init__(self):
        self.made = []

    def connect(self):
        thing = Thing()
        self.made.append(thing)
        return thing

    def is_clean(self, thing):
        return thing.clean

    def is_alive(self, thing):
        return not thing.closed

    def check(self, thing):
        pass

    def reset(self, thing):
        thing.clean = True
        return True

    def close(self, thing):
        thing.closed += 1


@pytest.fixture
def frequent_switches():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


class Crowd:
    """Threads that borrow until it is over."""

    def __init__(self, pool):
        self.pool = pool
        self.over = threading.Event()
        self.errors = []
        self.borrows = 0
        self.refusals = 0

    def borrow(self, number):
        random = Random(number)
        while not self.over.is_set():
            timeout = random.choice([0.0, 0.0001, 0.001, 10.0, 10.0, 10.0])
            try:
                with self.pool.borrow(timeout) as thing:
                    self.use(thing, random)
            except (PoolTimeout, PoolClosed, TooManyRequests):
                self.refusals += 1

    def use(self, thing, random):
        me = threading.get_ident()
        thing.users.append(me)
        if random.random() < 0.01:
            thing.clean = False
        if [me] != thing.users or thing.closed:
            self.errors.append((thing.users[:], thing.closed))
        thing.users.remove(me)
        self.borrows += 1

    def manage(self):
        random = Random(0)
        # At any moment, and up to 10 ms after the one before.
        while not self.over.wait(random.random() * 0.01):
            what = random.random()
            if what < 0.6:
                self.pool.resize(random.randrange(2), random.randrange(1, THREADS))
            elif what < 0.9:
                self.pool.drain()
            else:
                self.pool.close(timeout=5.0)
                self.pool.open()

    def run(self):
        threads = [threading.Thread(target=self.manage)]
        threads += [
            threading.Thread(target=self.borrow, args=(n,)) for n in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        self.over.wait(SECONDS)
        self.over.set()
        for thread in threads:
            thread.join()


@pytest.mark.usefixtures("frequent_switches")
def test_nothing_is_lent_twice_and_nothing_is_lost():
    things = Things()
    pool = Pool(things, min_size=1, max_size=3, max_waiting=3, name="stress")
    pool.open()
    crowd = Crowd(pool)

    crowd.run()

    statistics = pool.statistics()
    assert [] == crowd.errors
    assert crowd.borrows > 1000
    assert (0, 0) == (statistics.in_use, statistics.waiting)
    pool.close()
    assert 0 == pool.statistics().size
    assert {1} == {thing.closed for thing in things.made}
