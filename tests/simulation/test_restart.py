"""The server ends sessions while the pool is in use: nobody gets one that is dead."""

from __future__ import annotations

import pytest
from simulation.world import World

from edgepool._core.backoff import SHARE

SEEDS = range(10)
START, DOWN = 100.0, 0.3


def restart(seed):
    """Restart the server under load: 60 % of what ten connections can do."""
    world = World(seed, min_size=10, max_size=10)
    world.crowd(120.0, until=START + 20.0, hold=0.05)
    world.outage(START, DOWN)
    world.run(until=START + 30.0)
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_everybody_is_served_in_spite_of_a_restart(seed):
    world = restart(seed)

    assert all(client.served is not None for client in world.clients)


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_waits_much_longer_than_the_restart_takes(seed):
    world = restart(seed)

    backoff, connect = DOWN * SHARE, world.server.connect_time
    assert max(world.waits()) <= DOWN + backoff + 2 * connect + 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_all_places_are_filled_again_within_a_second(seed):
    world = World(seed, min_size=10, max_size=10)
    world.crowd(120.0, until=START + DOWN + 1.0)
    world.outage(START, DOWN)
    world.run(until=START + DOWN + 1.0)

    assert 10 == len(world.server.sessions)


def test_the_next_borrowers_after_all_idle_sessions_were_killed_see_no_error():
    world = World(min_size=12, max_size=12)
    world.at(START, lambda: world.server.kill(world.now, 12))
    for _ in range(12):
        world.at(START + 1.0, world.come)
    world.run(until=START + 1.5)

    assert 12 == len(world.waits())
    assert max(world.waits()) <= 2 * world.server.connect_time
    assert 12 == len(world.server.sessions)


def test_one_dead_connection_has_its_idle_siblings_replaced_at_once():
    world = World(min_size=12, max_size=12)
    world.at(START, lambda: world.server.kill(world.now, 12))
    world.at(START + 1.0, world.come)
    world.run(until=START + 1.5)

    assert 12 == len(world.server.sessions)
    assert 12 == world.core.statistics().lost


def test_what_is_checked_in_the_background_is_replaced_before_anybody_comes():
    world = World(min_size=4, max_size=4, check_after=30.0)
    world.at(START, lambda: world.server.kill(world.now, 4))
    world.at(START + 31.0, world.come)
    world.run(until=START + 32.0)

    (client,) = world.clients
    assert 0.0 == client.waited
    assert 4 == len(world.server.sessions)
