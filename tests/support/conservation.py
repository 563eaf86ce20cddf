"""After whatever has happened to a pool: nothing is lost, and nothing is left over.

The four checks that end each scenario in tests/faults.
"""

from __future__ import annotations

from support.parity import eventually, result
from support.pg import sessions_of
from support.pgbouncer import PgBouncer

# A pool that has lost a place never serves the last of `max_size` borrowers.
AT_ONCE = 5.0


def settled(pool, held):
    """Tell whether every place is idle or held, and nobody is recorded as waiting."""
    now = pool.statistics()
    return now.waiting == 0 and now.in_use == held and now.size == now.idle + held


async def conserved(pool, server, application_name=None, held=0):
    """Assert that a pool has kept all that it had.

    Args:
        pool: the pool, of threads or of tasks, while nobody uses it.
        server: the server that it connects to; or a pooler, which is the test's own;
            or None, if the test counts sessions by itself.
        application_name: the pool's own, at a server.
        held: how many connections the test itself still holds.
    """
    await eventually(lambda: settled(pool, held))
    borrowed = [
        await result(pool.getconn(timeout=AT_ONCE)) for _ in range(pool.max_size - held)
    ]
    for conn in borrowed:
        await result(pool.putconn(conn))
    await eventually(lambda: settled(pool, held))

    def sessions():
        # Those that a pooler has at the server are no pool's: its clients are.
        if isinstance(server, PgBouncer):
            return server.clients
        return sessions_of(server, application_name)

    if server is not None:
        await eventually(lambda: sessions() == pool.statistics().size)
