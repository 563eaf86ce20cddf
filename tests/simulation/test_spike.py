"""Many come at once: the pool grows, serves them in turn, and shrinks again."""

from __future__ import annotations

import pytest
from simulation.world import World

from edgepool._core import Refusal

SEEDS = range(5)
START, LENGTH = 100.0, 5.0
MAX_IDLE = 60.0


def spike(seed, *, patience=30.0, **settings):
    """Let ten times as many come for a few seconds as come before and after."""
    world = World(
        seed, **{"min_size": 2, "max_size": 10, "max_idle": MAX_IDLE, **settings}
    )

    def rate(now):
        return 300.0 if START <= now < START + LENGTH else 30.0

    world.crowd(rate, until=START + 30.0, hold=0.05, patience=patience)
    world.run(until=START + 30.0 + 2 * MAX_IDLE)
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_everybody_with_patience_is_served(seed):
    world = spike(seed)

    assert all(client.served is not None for client in world.clients)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_pool_grows_to_max_size_and_no_further(seed):
    assert 10 == spike(seed).server.peak


@pytest.mark.parametrize("seed", SEEDS)
def test_the_wait_is_the_work_that_is_ahead_shared_by_all_connections(seed):
    world = spike(seed)

    # What comes beyond what ten connections can do piles up for as long as it comes.
    surplus = LENGTH * (300.0 - 10 / 0.05)
    assert max(world.waits()) <= 1.3 * surplus * 0.05 / 10


@pytest.mark.parametrize("seed", SEEDS)
def test_they_are_served_in_the_order_in_which_they_came(seed):
    served = [client.served for client in spike(seed).clients]

    assert sorted(served) == served


@pytest.mark.parametrize("seed", SEEDS)
def test_who_has_no_patience_leaves_in_time_and_takes_nothing_along(seed):
    world = spike(seed, patience=0.5)

    assert {None, Refusal.TIMEOUT} == {client.refused for client in world.clients}
    assert max(client.waited for client in world.clients) <= 0.5 + 1e-9
    assert 0 == world.core.statistics().in_use


@pytest.mark.parametrize("seed", SEEDS)
def test_max_waiting_refuses_the_surplus_at_once(seed):
    world = spike(seed, max_waiting=20)

    refused = [client for client in world.clients if client.refused]
    assert {Refusal.FULL} == {client.refused for client in refused}
    assert {0.0} == {client.waited for client in refused}
    # Twenty ahead, ten at a time.
    assert max(world.waits()) <= 1.0


@pytest.mark.parametrize("seed", SEEDS)
def test_the_pool_shrinks_to_min_size_when_the_spike_is_over(seed):
    world = spike(seed)

    assert 2 == len(world.server.sessions)


def test_a_cold_pool_opens_its_connections_side_by_side():
    world = World(min_size=0, max_size=20, max_connecting=10)
    for _ in range(20):
        world.at(START, lambda: world.come(hold=10.0))
    world.run(until=START + 1.0)

    assert max(world.waits()) <= 2 * world.server.connect_time + 1e-9
