"""Have the server end what a connection is still doing, before the connection goes.

A server does not notice that its client has gone while it works on a query: it looks at
the socket when it has an answer to send. So the client has to say so, on a connection
of its own, which libpq opens for it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias
from weakref import WeakKeyDictionary

import psycopg
from psycopg import capabilities
from psycopg.pq import PollingStatus
from psycopg.waiting import Wait, wait_conn, wait_conn_async

from ._states import ACTIVE

if TYPE_CHECKING:
    from psycopg.abc import PQGenConn
    from psycopg.pq import abc

    Request: TypeAlias = abc.PGcancelConn

# How long a request may take, in seconds. It is a handshake and 16 bytes; meanwhile the
# connection holds its place.
CANCEL_WITHIN: Final = 1.0

# How often a wait looks up for a deadline and for Ctrl-C, in seconds. psycopg's figure.
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


def send(request: Request, pgconn: abc.PGconn) -> None:
    """Send a request, and wait until the server has taken note."""
    try:
        if not wait_conn(_attempt(request, pgconn), interval=GLANCE):
            wait_conn(_attempt(request, pgconn), interval=GLANCE)
    finally:
        request.finish()


def send_apart(
    request: Request, pgconn: abc.PGconn, then: Callable[[abc.PGconn], None]
) -> bool:
    """Send a request in a thread of its own, and go on there; False if there is none.

    Takes `CANCEL_WITHIN` on a network that is silent.
    """

    def work() -> None:
        try:
            with suppress(psycopg.Error, OSError):
                send(request, pgconn)
        finally:
            then(pgconn)

    try:
        Thread(target=work, daemon=True).start()
    except RuntimeError:  # no thread to be had
        return False
    return True


async def send_async(request: Request, pgconn: abc.PGconn) -> None:
    """Send a request; see `send`."""
    try:
        if not await wait_conn_async(_attempt(request, pgconn), interval=GLANCE):
            await wait_conn_async(_attempt(request, pgconn), interval=GLANCE)
    finally:
        request.finish()


def _attempt(request: Request, pgconn: abc.PGconn) -> PQGenConn[bool]:
    """Send a request; tell whether the query has ended, as far as one can see.

    A query that was sent just now may be overtaken by the request. Then the server has
    nothing to cancel yet, and it takes another one.
    """
    request.reset()
    yield from deliver(request)
    # A twin, because somebody who was left behind may be waiting for the socket too.
    twin = _twin(pgconn)
    if twin is None:
        return True
    with twin:
        return not pgconn.is_busy() or bool((yield twin.fileno(), Wait.R))


def deliver(request: Request) -> PQGenConn[None]:
    """Send a request, once, and wait until the server has taken note."""
    deadline = monotonic() + CANCEL_WITHIN
    request.start()
    while (status := request.poll()) != PollingStatus.OK:
        if status == PollingStatus.FAILED:
            raise psycopg.OperationalError(request.get_error_message())
        wait = Wait.R if status == PollingStatus.READING else Wait.W
        while not (yield request.socket, wait):
            if monotonic() >= deadline:
                raise TimeoutError("not done in time")


def _twin(pgconn: abc.PGconn) -> socket.socket | None:
    try:
        return socket.socket(fileno=os.dup(pgconn.socket))
    except (OSError, psycopg.Error):  # it is closed
        return None


def shut_down(pgconn: abc.PGconn) -> None:
    if (twin := _twin(pgconn)) is not None:
        with twin, suppress(OSError):
            twin.shutdown(socket.SHUT_RDWR)


class Cancellations:
    """The requests of one pool, which are sent before what they are about is closed."""

    def __init__(self) -> None:
        # Prepared, and not sent yet.
        self._prepared: WeakKeyDictionary[abc.PGconn, Request] = WeakKeyDictionary()

    def cut_off(self, pgconn: abc.PGconn, *, pooled: bool) -> None:
        """Shut the socket down, so that whoever waits for the server gets an error.

        Closing the connection instead, while somebody uses it, would free the memory
        that libpq is working on. What the server is doing is to be ended by what `take`
        gives then.

        Args:
            pgconn: the connection.
            pooled: whether a pooler is in the way, which forgets whom to cancel for
                when its client goes: it is told first, by nobody who waits here.
        """
        request = request_cancel(pgconn)
        if request is not None and not pooled:
            self._prepared[pgconn] = request
        elif request is not None and send_apart(request, pgconn, shut_down):
            return
        shut_down(pgconn)

    def prepare(self, pgconn: abc.PGconn) -> None:
        """Prepare the request for a query that goes on though nobody waits for it."""
        if (request := request_cancel(pgconn)) is not None:
            self._prepared[pgconn] = request

    def are_due(self, pgconn: abc.PGconn) -> bool:
        """Tell whether there is one to be sent before the connection is closed."""
        return pgconn in self._prepared or pgconn.transaction_status == ACTIVE

    def take(self, pgconn: abc.PGconn) -> Request | None:
        """Return the request that is to be sent, once."""
        return self._prepared.pop(pgconn, None) or request_cancel(pgconn)
