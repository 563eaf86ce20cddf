"""The server is away for a while: who waits is served soon after it is back."""

from __future__ import annotations

from functools import cache

import pytest
from simulation.world import World

from edgepool._core import Refusal
from edgepool._core.backoff import CAP_WAITED, EAGER, FLOOR, SHARE

START = 100.0
LENGTHS = [0.05, 0.3, 1.0, 5.0, 20.0, 120.0, 600.0]


@cache
def outage(length, *, rate=None, patience=30.0, refusal_time=0.001):
    """Let clients come at random before, during and after an outage."""
    world = World(min_size=2, max_size=10)
    world.server.refusal_time = refusal_time
    rate = rate or min(50.0, 3000.0 / length)
    world.crowd(rate, until=START + length + 40.0, patience=patience)
    world.outage(START, length)
    world.run(until=START + length + 40.0 + patience)
    return world


def first_served_after(world, moment):
    return min(c.served for c in world.clients if c.served and c.served > moment)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_first_who_waits_is_served_as_soon_as_the_backoff_allows(length):
    world = outage(length)

    back = START + length
    bound = min(max(FLOOR, length * SHARE), CAP_WAITED) + world.server.connect_time
    assert first_served_after(world, back) - back <= bound


@pytest.mark.parametrize("length", LENGTHS[3:])
def test_the_pool_has_its_full_size_two_connects_later(length):
    world = World(min_size=2, max_size=10)
    world.crowd(50.0, until=START + length + 5.0, patience=5.0)
    world.outage(START, length)
    world.run(until=START + length)
    while not world.server.sessions:
        world.run(until=world.now + 0.001)

    world.run(until=world.now + 1.5 * world.server.connect_time)

    assert 10 == len(world.server.sessions)


@pytest.mark.parametrize("length", LENGTHS)
def test_who_comes_after_the_outage_waits_for_a_connect_and_a_moment(length):
    world = World(min_size=0, max_size=4)
    world.at(START - 1.0, world.come)
    world.outage(START, length)
    world.at(START + length * 0.9, lambda: world.come(patience=length * 0.09))
    world.at(START + length, world.come)
    world.run(until=START + length + 10.0)

    *_, last = world.clients
    assert last.waited <= EAGER + world.server.connect_time


@pytest.mark.parametrize("length", LENGTHS)
def test_a_pool_that_nobody_used_meanwhile_serves_after_one_connect(length):
    world = World(min_size=4, max_size=4)
    world.outage(START, length)
    world.at(START + length, world.come)
    world.run(until=START + length + 10.0)

    (client,) = world.clients
    assert client.waited <= EAGER + world.server.connect_time


def test_one_connect_at_a_time_during_an_outage():
    world = outage(60.0, rate=50.0, patience=5.0)

    under_way = [n for moment, n in world.connects if START + 0.1 < moment < START + 60]
    assert {1} == set(under_way)


@pytest.mark.parametrize("rate", [1.0, 20.0, 200.0])
def test_no_more_connects_a_second_however_many_come(rate):
    world = outage(60.0, rate=rate, patience=5.0)

    assert world.busiest_second(START, START + 60.0) <= 70
    assert world.busiest_second(START + 2.0, START + 60.0) <= 1 / EAGER + 1


def test_one_connect_succeeds_before_the_others_start():
    world = outage(60.0, rate=50.0, patience=5.0)

    back = START + 60.0
    first = first_served_after(world, back)
    assert {1} == {n for moment, n in world.connects if back <= moment < first}


def test_a_server_that_takes_long_to_refuse_is_asked_once_at_a_time():
    world = outage(60.0, patience=5.0, refusal_time=10.0)

    assert world.busiest_second(START + 20.0, START + 60.0) <= 1


@pytest.mark.parametrize("length", LENGTHS)
def test_nobody_is_forgotten_in_an_outage(length):
    world = outage(length, patience=3.0)

    assert all(client.waited < 3.001 for client in world.clients)
    assert {None, Refusal.TIMEOUT} >= {client.refused for client in world.clients}
    assert 0 == world.core.statistics().waiting


@pytest.mark.parametrize("length", LENGTHS)
def test_never_more_sessions_than_max_size(length):
    world = outage(length)

    assert 10 == world.server.peak


def test_the_alarm_goes_every_reconnect_timeout():
    world = World(min_size=1, max_size=1, reconnect_timeout=10.0)
    world.crowd(5.0, until=START + 60.0, patience=1.0)
    world.outage(START, 35.0)
    world.run(until=START + 60.0)

    assert [10, 20, 30] == [round(moment - START) for moment in world.alarms]


# --- fifty who keep asking ------------------------------------------------------------

# Briefly; longer than a borrow's timeout; longer than every timeout that there is.
OUTAGES = [2.0, 35.0, 2 * 3600.0]
CLIENTS = 50


@cache
def fifty(length):
    """Let clients keep asking; half of them have hardly any patience.

    Half of those are cancelled, as tasks are, the others time out.
    """
    world = World(min_size=4, max_size=8)
    until = START + length + 10.0

    def ask(number):
        if world.now >= until:
            return
        patience = 30.0
        if number % 2:
            patience = world.random.uniform(0.005, 0.3)
        client = world.come(0.002, patience, fickle=number % 4 == 1)
        # Those who are out for hours have learned to come less often.
        pause = world.random.uniform(0.005, max(0.01, length / 700))
        world.at(client.came + patience, lambda: world.after(pause, again(number)))

    def again(number):
        return lambda: ask(number)

    for number in range(CLIENTS):
        world.at(START - 1.0, again(number))
    world.at(START + length, lambda: world.come(patience=30.0))
    world.outage(START, length)
    world.run(until=until + 40.0)
    return world


@pytest.mark.parametrize("length", OUTAGES)
def test_fifty_who_keep_asking_lose_nothing(length):
    world = fifty(length)

    assert {None, Refusal.TIMEOUT} == {client.refused for client in world.clients}
    assert any(c.fickle and c.served is None for c in world.clients)
    assert all(client.left is not None for client in world.clients)
    stats = world.core.statistics()
    assert (0, 0) == (stats.waiting, stats.in_use)
    assert stats.size == stats.idle == len(world.server.sessions)
    assert 8 == world.server.peak


@pytest.mark.parametrize("length", OUTAGES)
def test_fifty_who_keep_asking_are_no_stampede(length):
    world = fifty(length)

    assert world.busiest_second(START, START + length) <= 70
    assert world.busiest_second(START + 2.0, START + length) <= 1 / EAGER + 1


@pytest.mark.parametrize("length", OUTAGES)
def test_among_fifty_who_comes_when_it_is_over_waits_for_a_connect_and_a_moment(length):
    world = fifty(length)

    back = START + length
    came = [client for client in world.clients if client.came == back]
    assert came
    # Twice, for there are more of them than places in the pool.
    bound = EAGER + 2 * world.server.connect_time
    assert max(client.waited for client in came) <= bound


@pytest.mark.parametrize("length", OUTAGES)
def test_all_who_wait_when_it_is_over_are_served_within_two_seconds(length):
    world = fifty(length)

    back = START + length
    waiting = [c for c in world.clients if c.came <= back < c.came + c.waited]
    patient = [c for c in waiting if c.came + c.patience > back + 2.0]
    assert patient
    assert max(c.served for c in patient if c.refused is None) <= back + 2.0
    assert all(client.refused is None for client in patient)


@pytest.mark.parametrize("length", OUTAGES[1:])
def test_who_comes_during_the_last_attempt_that_fails_waits_for_no_backoff(length):
    def slow_refusals():
        world = World(min_size=0, max_size=4)
        world.server.refusal_time = 0.2
        world.at(START, lambda: world.come(patience=length * 2))
        return world

    rehearsal = slow_refusals()
    rehearsal.outage(START, length)
    rehearsal.run(until=START + length - 1.0)
    last, _ = rehearsal.connects[-1]
    world = slow_refusals()
    world.outage(START, last + 0.2001 - START)
    world.at(last + 0.1, world.come)
    world.run(until=START + length + 10.0)

    *_, newcomer = world.clients
    assert newcomer.waited <= 0.1 + EAGER + 3 * world.server.connect_time


def test_an_attempt_that_hangs_does_not_hold_up_who_comes_when_it_is_over():
    world = World(min_size=0, max_size=4)
    world.outage(START, 60.0)
    # The network swallows what is tried: the answer comes minutes later.
    world.server.refusal_time = 300.0
    world.at(START + 1.0, lambda: world.come(patience=0.5))
    world.at(START + 60.0, world.come)
    world.run(until=START + 90.0)

    *_, last = world.clients
    assert last.waited == pytest.approx(world.server.connect_time)
