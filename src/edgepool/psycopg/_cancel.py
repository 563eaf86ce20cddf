"""Have the server end what a connection is still doing, before the connection goes.

A server does not notice that its client has gone while it works on a query: it looks at
the socket when it has an answer to send. So the client has to say so, on a connection
of its own, which libpq opens for it.
"""

from __future__ import annotations

from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

import psycopg
from psycopg import capabilities
from psycopg.pq import PollingStatus, TransactionStatus
from psycopg.waiting import Wait, wait_conn, wait_conn_async

if TYPE_CHECKING:
    from psycopg.abc import PQGenConn
    from psycopg.pq import abc

    Request: TypeAlias = abc.PGcancelConn

ACTIVE: Final = int(TransactionStatus.ACTIVE)

# How long a request may take, in seconds. It is a handshake and 16 bytes; meanwhile the
# connection holds its place.
CANCEL_WITHIN: Final = 1.0

# How often a wait looks up for the deadline, in seconds. psycopg's figure.
GLANCE: Final = 0.1


def request_cancel(pgconn: abc.PGconn) -> Request | None:
    """Prepare a request to end the query that is under way; None if there is none.

    Waits for nothing. The request has all it needs, so it can be sent also when the
    connection is gone.
    """
    if pgconn.transaction_status != ACTIVE:
        return None
    try:
        if capabilities.has_cancel_safe():
            return pgconn.cancel_conn()
        # libpq before 17 can only block, without a deadline: nobody waits for it.
        Thread(target=pgconn.get_cancel().cancel, daemon=True).start()
    except (psycopg.Error, RuntimeError):  # closed just now; no thread to be had
        pass
    return None


def send(request: Request) -> None:
    """Send a request, and wait until the server has taken note."""
    wait_conn(_send(request), interval=GLANCE)


async def send_async(request: Request) -> None:
    """Send a request; see `send`."""
    await wait_conn_async(_send(request), interval=GLANCE)


def _send(request: Request) -> PQGenConn[None]:
    deadline = monotonic() + CANCEL_WITHIN
    try:
        request.start()
        while (status := request.poll()) != PollingStatus.OK:
            if status == PollingStatus.FAILED:
                raise psycopg.OperationalError(request.get_error_message())
            wait = Wait.R if status == PollingStatus.READING else Wait.W
            while not (yield request.socket, wait):
                if monotonic() >= deadline:
                    raise TimeoutError("not done in time")
    finally:
        request.finish()
