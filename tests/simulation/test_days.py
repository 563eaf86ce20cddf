"""Days of traffic, with everything that days bring."""

from __future__ import annotations

import math
from functools import cache

import pytest
from simulation.world import World

from edgepool._core import Refusal

HOUR = 3600.0
DAY = 24 * HOUR
DAYS = 7

OUTAGES = [
    (0.3 * DAY, 0.3),
    (0.5 * DAY, 45.0),
    (0.9 * DAY, 20 * 60.0),
    (1.2 * DAY, 2 * HOUR),
    (2.1 * DAY, 5.0),
    (2.1 * DAY + 6.0, 5.0),
    (2.4 * DAY, 1.0),
    (4.6 * DAY, 0.05),
    (5.5 * DAY, 600.0),
    (6.3 * DAY, 90.0),
]


STRETCHES = [(start, start + length) for start, length in OUTAGES]


def traffic(now):
    """Tell how many come in a second: few at night, most in the afternoon."""
    return 0.25 - 0.22 * math.cos((now / DAY - 0.1) * 2 * math.pi)


@cache
def days():
    world = World(
        min_size=2,
        max_size=6,
        max_idle=600.0,
        max_lifetime=HOUR,
        check_after=300.0,
    )
    world.crowd(traffic, until=DAYS * DAY, hold=2.0, patience=30.0)
    for start, length in OUTAGES:
        world.outage(start, length)
    world.run(until=DAYS * DAY + HOUR)
    return world


def is_calm(moment):
    """Tell whether no outage is under way, and none was within a minute."""
    return not any(
        start - 1 < moment < start + length + 60 for start, length in OUTAGES
    )


def test_nobody_is_forgotten_in_days():
    world = days()

    assert len(world.clients) > 100_000
    assert all(client.left is not None for client in world.clients)
    assert 0 == world.core.statistics().waiting == world.core.statistics().in_use


def test_nobody_waits_for_longer_than_his_patience():
    assert max(client.waited for client in days().clients) <= 30.0 + 1e-6


def test_only_an_outage_makes_anybody_give_up():
    refused = [client for client in days().clients if client.refused]

    assert {Refusal.TIMEOUT} == {client.refused for client in refused}
    assert not [client for client in refused if is_calm(client.came)]


def test_hardly_anybody_waits_when_there_is_no_outage():
    calm = [client.waited for client in days().clients if is_calm(client.came)]

    assert 0.95 < sum(waited < 0.001 for waited in calm) / len(calm)


def test_never_more_sessions_than_max_size_in_days():
    assert 6 == days().server.peak


def test_a_pool_that_is_left_alone_after_days_has_min_size():
    assert 2 == len(days().server.sessions)


def test_nothing_is_lent_that_is_older_than_max_lifetime():
    assert 0.9 * HOUR < days().oldest <= HOUR


def test_an_outage_of_hours_costs_one_connect_a_second():
    world = days()
    start, length = OUTAGES[3]

    tried = [moment for moment, _ in world.connects if start < moment < start + length]
    assert len(tried) < 1.5 * length


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_gives_the_same_history(seed):
    def hour():
        world = World(seed, min_size=1, max_size=3, max_idle=60.0)
        world.crowd(1.0, until=HOUR, hold=2.0)
        world.outage(0.5 * HOUR, 30.0)
        world.run(until=HOUR + 60.0)
        return world.history()

    assert hour() == hour()
