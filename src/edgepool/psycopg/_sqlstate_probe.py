"""One more attempt to connect, with libpq's trace on, to see the SQLSTATE of a refusal.

The server translates its texts (`lc_messages`), and the trace is the one place where
libpq shows the code behind them. Whatever happens, the attempt is finished and the
trace is gone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping
from tempfile import TemporaryFile
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeVar

import psycopg
from psycopg.pq import ConnStatus, PGconn, PollingStatus, Trace
from psycopg.waiting import Wait, wait_conn, wait_conn_async

from .._core import PERMANENT
from ._cancel import GLANCE
from ._error_classes import CLASSES
from ._refusals import read

if TYPE_CHECKING:
    from psycopg.abc import PQGenConn
    from psycopg.pq import abc

R = TypeVar("R")

PERMANENT_SQLSTATES: Final = frozenset(
    sqlstate for sqlstate, kind in CLASSES.items() if kind in PERMANENT
)

_FLAGS: Final = Trace.SUPPRESS_TIMESTAMPS | Trace.REGRESS_MODE

# A text that was asked about without an answer. Not a permanent SQLSTATE.
UNTOLD: Final = ""

# A refusal in the trace (fe-trace.c, pqTraceOutputNR): `B` is for the backend, `NN` for
# the length. PostgreSQL and PgBouncer send the code before the message. Nothing is
# escaped, so the rest of a message of several lines follows on lines of its own.
_TRACED: Final = re.compile(
    r'^B\tNN\tErrorResponse\t.*? C "([0-9A-Z]{5})".*? M "(.*)$', re.MULTILINE
)


def ask(conninfo: str, timeout: float) -> PQGenConn[Mapping[str, str]]:
    """Connect once more, to see SQLSTATEs; like `psycopg.generators.connect`.

    Yields what to wait for. The caller has to come back now and then, with nothing
    ready, for the timeout to be noticed. Whatever happens, also when the generator is
    closed early, the connection is finished and the trace is gone.

    libpq goes through several hosts in its own way, which is not psycopg's: name one.

    Returns:
        What the server said, each text with its SQLSTATE. Nothing if it did not refuse
        (it is not there, does not answer in time, or let us in), and where libpq does
        not tell: it traces on Linux only, and refusals during authentication only since
        libpq 18.
    """
    if sys.platform != "linux":
        return {}
    deadline = monotonic() + timeout
    # A file without a name, because libpq 18 traces a password that is sent in clear,
    # and the md5 answer (older: lengths only). REGRESS_MODE hides SCRAM's, as `BBBB`.
    with TemporaryFile(buffering=0) as file:
        pgconn = PGconn.connect_start(conninfo.encode())
        try:
            pgconn.trace(file.fileno())
            pgconn.set_trace_flags(_FLAGS)
            try:
                refused = yield from _connect(pgconn, deadline)
                said = pgconn.get_error_message() if refused else ""
            finally:
                # Flushes. What stayed in libpq's buffer could end up in whatever file
                # has this descriptor next.
                pgconn.untrace()
        finally:
            pgconn.finish()

        file.seek(0)
        trace = file.read().decode("utf-8", "replace")
    return _answers(said, trace)


def _connect(pgconn: abc.PGconn, deadline: float) -> PQGenConn[bool]:
    # Returns whether the attempt came to an end, and to a bad one.
    while pgconn.status != ConnStatus.BAD:
        match pgconn.connect_poll():
            case PollingStatus.READING:
                wait = Wait.R
            case PollingStatus.WRITING:
                wait = Wait.W
            case PollingStatus.OK:
                return False
            case _:
                return True
        ready = 0
        while not ready:
            ready = yield pgconn.socket, wait
            if monotonic() >= deadline:
                return False
    return True


def _answers(said: str, trace: str) -> Mapping[str, str]:
    # By the texts of `said`, which are read the way the failure's own were.
    traced = _TRACED.findall(trace)
    answers: dict[str, str] = {}
    for text in read(said).refusals:
        codes = (c for c, m in traced if m == text or m.startswith(f'{text}"'))
        answers[text] = next(codes, UNTOLD)
    return answers


# psycopg took a timeout here only in 3.3, so the generators watch the time themselves
# and every version wakes them up for it.


def wait(generator: PQGenConn[R], nothing: R) -> R:
    try:
        return wait_conn(generator, interval=GLANCE)
    except (psycopg.Error, OSError):
        return nothing
    finally:
        generator.close()


async def wait_async(generator: PQGenConn[R], nothing: R) -> R:
    try:
        return await wait_conn_async(generator, interval=GLANCE)
    except (psycopg.Error, OSError):
        return nothing
    finally:
        generator.close()


def deciding(states: Collection[str | None]) -> str | None:
    lasting = [s for s in states if s not in PERMANENT_SQLSTATES]
    if not lasting:
        return next(iter(states), None)
    return next((s for s in lasting if s), None)
