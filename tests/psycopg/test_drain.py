"""A drain that takes its time: nobody finds the pool empty, and all are replaced."""

from __future__ import annotations

from support.conservation import conserved
from support.parity import eventually, result
from support.pg import application_name, at_rest, idle


async def test_a_slow_drain_replaces_all_and_leaves_no_gap(
    colour, server, sessions, conninfo, caplog
):
    caplog.set_level("INFO", "edgepool.pool")
    async with colour.pool(conninfo, min_size=3, max_size=4) as pool:
        await at_rest(pool, 3)
        old = set(sessions.pids)
        fewest = [idle(pool)]

        def replaced():
            fewest.append(idle(pool))
            return not old & set(sessions.pids)

        await result(pool.drain(over=0.5))
        await eventually(replaced)
        await at_rest(pool, 3)

        assert 3 == min(fewest)
        assert f"{pool.name}: draining over 0.5 s" in caplog.messages

        await conserved(pool, server, application_name(conninfo))
