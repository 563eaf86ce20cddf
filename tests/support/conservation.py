"""After whatever has happened to a pool: nothing is lost, and nothing is left over.

The four checks that end each scenario in tests/faults.
"""

from __future__ import annotations

from support.parity import eventually, result
from support.pg import sessions_of

# A pool that has lost a place never serves the last of `max_size` borrowers.
AT_ONCE = 5.0


def settled(pool, held):
    """Tell whether every place is idle or held, and nobody is recorded as waiting."""
    now = pool.statistics()
    return now.waiting == 0 and now.in_use == held and now.size == now.idle + held


async def conserved(pool, server, application_name, held=0):
    """Assert that a pool has kept all that it had.

    Args:
        pool: the pool, of threads or of tasks, while nobody uses it.
        server: the server that it connects to.
        application_name: the pool's own, there.
        held: how many connections the test itself still holds.
    """
    await eventually(lambda: settled(pool, held))
    borrowed = [
        await result(pool.getconn(timeout=AT_ONCE)) for _ in range(pool.max_size - held)
    ]
    for conn in borrowed:
        await result(pool.putconn(conn))
    await eventually(lambda: settled(pool, held))
    await eventually(
        lambda: sessions_of(server, application_name) == pool.statistics().size
    )
