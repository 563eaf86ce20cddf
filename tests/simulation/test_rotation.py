"""Connections that grow too old are replaced, and those who come do not notice."""

from __future__ import annotations

import pytest
from simulation.world import World

UNTIL = 600.0


def longest_wait(min_size, max_size, renewal):
    """Let people come one by one; tell how long one had to wait, at most.

    Connecting takes half a second, so whoever comes to an empty pool notices.
    """
    world = World(
        min_size=min_size, max_size=max_size, max_lifetime=20.0, renewal=renewal
    )
    world.server.connect_time = 0.5
    world.run(until=1.0)
    world.crowd(lambda now: 10.0, until=UNTIL, hold=1e-6, patience=30.0)
    world.run(until=UNTIL + 1.0)

    assert len(world.connects) > UNTIL / 20.0

    return max(client.waited for client in world.clients)


@pytest.mark.parametrize("sizes", [(1, 2), (3, 3)], ids=["room", "no room"])
def test_nobody_waits_for_a_replacement(sizes):
    assert longest_wait(*sizes, renewal=0.05) < 0.001


def test_without_one_ahead_of_time_somebody_does():
    assert longest_wait(1, 2, renewal=0.0) > 0.1


def test_a_slow_drain_is_not_noticed():
    world = World(min_size=3, max_size=4, max_lifetime=3600.0)
    world.server.connect_time = 0.5
    world.run(until=1.0)
    old = set(world.server.sessions)
    world.crowd(lambda now: 10.0, until=60.0, hold=1e-6, patience=30.0)
    world.at(10.0, lambda: world.tell(world.core.drain_over, 30.0))
    world.run(until=60.0)

    assert not old & set(world.server.sessions)
    assert max(client.waited for client in world.clients) < 0.001
