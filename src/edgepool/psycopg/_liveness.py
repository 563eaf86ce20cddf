"""Whether the server has closed a connection, told without a round trip."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import logging
import select
from collections.abc import Callable
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import DiagnosticField

from ._states import OK

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

log = logging.getLogger("edgepool.retire")

FATAL = frozenset((b"FATAL", b"PANIC"))

# How often a socket that stays readable is read: each time takes in 16 kB or more. What
# is still readable then is not looked at any longer, and in doubt counts as dead.
READS = 64

Readable = Callable[[int], object]


def watch(fd: int) -> Readable:
    """Return a function that, called with 0, tells without waiting if `fd` is readable.

    Made once for each connection: making the poll object costs more than asking it.
    """
    if not hasattr(select, "poll"):  # Windows
        return lambda timeout: select.select([fd], [], [], timeout)[0]
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return poll.poll


def survives_news(pgconn: PGconn, readable: Readable) -> bool:
    """Read what the server has said unasked; tell whether the session goes on.

    libpq can tell, once it has read it.
    """
    # The farewell of a session is an error that comes as a notice, and the end of the
    # stream may follow it a moment later: a reader who waits for the end alone would
    # call the session alive in between.
    severities: list[bytes | None] = []
    handler = pgconn.notice_handler

    def listen(result: PGresult) -> None:
        severities.append(result.error_field(DiagnosticField.SEVERITY_NONLOCALIZED))
        if handler is not None:
            handler(result)

    pgconn.notice_handler = listen
    quiet = False
    try:
        for _ in range(READS):
            pgconn.consume_input()
            pgconn.is_busy()
            if quiet := not readable(0):
                break
    except psycopg.Error:
        return False
    finally:
        pgconn.notice_handler = handler
    alive = quiet and pgconn.status == OK and FATAL.isdisjoint(severities)
    if alive:
        _pass_on_notifications(pgconn)
    return alive


def _pass_on_notifications(pgconn: PGconn) -> None:
    # psycopg looks for what libpq has read already only after it has read more.
    while (notification := pgconn.notifies()) is not None:
        if pgconn.notify_handler is None:
            continue
        try:
            pgconn.notify_handler(notification)
        except Exception:
            log.exception("error in a notify handler")
