"""An outage at its full length, in virtual time, with fifty who want a connection."""

from __future__ import annotations

import pytest

from edgepool import ConnectFailed, PermanentError, PoolTimeout

# Briefly; longer than a borrow's timeout; longer than every timeout that there is.
LENGTHS = [2.0, 35.0, 2 * 3600.0]
CLIENTS = 50
ROUNDS = 6
CONNECT_TIME = 0.02


def refused():
    error = PermanentError("password authentication failed")
    error.__cause__ = OSError("password authentication failed")
    return error


ERRORS = {
    "down": lambda: ConnectionRefusedError("the server is down"),
    "full": lambda: OSError("sorry, too many clients already"),
    "refused": refused,
}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("why", ERRORS)
async def test_fifty_are_served_after_an_outage_of_any_length(world, why, length):
    pool = await world.open_pool(min_size=4, max_size=8)
    world.server.delay("connect", CONNECT_TIME)
    world.server.down(ERRORS[why]())
    began, so_far = world.now, world.server.connects
    for _ in range(ROUNDS):
        await ask_in_vain(world, pool, length / ROUNDS)
    attempts = world.server.connects - so_far
    world.server.up()
    back = world.now
    borrowers = [world.start(world.borrow(pool)) for _ in range(CLIENTS)]
    held = await borrowers[0].outcome()

    # An attempt may be under way that began before.
    assert world.now - back <= 0.05 + 2 * CONNECT_TIME

    await held.give_back()
    for borrower in borrowers[1:]:
        await (await borrower.outcome()).give_back()

    assert world.now - back <= 2.0
    assert attempts <= 70 + 21 * (back - began)

    await world.sleep(1.0)  # for the connects that are under way
    stats = pool.statistics()

    assert (0, 0, 0) == (stats.waiting, stats.in_use, stats.opening)
    assert stats.size == stats.idle == len(world.server.sessions)

    everything = [await world.borrow(pool, timeout=0.0) for _ in range(stats.size)]
    for one in everything:
        await one.give_back()


async def ask_in_vain(world, pool, seconds):
    """Let fifty borrow and get nothing; every other one is interrupted."""
    ended = world.now + seconds
    patience = min(30.0, seconds / 2)
    borrowers = [
        world.start(world.borrow(pool, timeout=patience * (1 + number % 5) / 5))
        for number in range(CLIENTS)
    ]
    await world.sleep(0.001)
    for borrower in borrowers[::2]:
        if not borrower.done:
            world.interrupt(borrower)
    for borrower in borrowers:
        assert isinstance(
            await borrower.error(), (PoolTimeout, ConnectFailed, world.Interruption)
        )
    await world.sleep(ended - world.now)
