"""What the user's `configure` says to a session that will be another one's next.

Behind a pooler in transaction mode, what is set on a session is seen by whoever has it
next, and soon not by who has set it. Done once in the life of a pool, for the user to
be told; libpq's trace is read, which is written on Linux only.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Final

from psycopg.pq import Trace

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

# Statements as the trace shows them (fe-trace.c): `F` is for the frontend.
_SENT: Final = re.compile(r"^F\t\w+\t(?:Query|Parse)\t(.*)$", re.MULTILINE)

# PgBouncer sees to it that each client has its own of these.
_KEPT: Final = (
    "application_name|client_encoding|datestyle|names|standard_conforming_strings"
    r"|time\s+zone|timezone"
)
_LASTING: Final = re.compile(
    rf"""
    (?: ^ | [;"] ) \s* (?:
        (?P<set> set ) \s+ (?! (?:local|transaction|constraints) \b )
            (?! (?:session\s+)? (?:{_KEPT}|characteristics) \b )
        | (?P<listen> listen ) \s
        | (?P<prepare> prepare ) \s+ (?! transaction )
        | (?P<temp> create \s+ temp(?:orary)? ) \s
    )
    | (?P<function> set_config ) \s* \( \s* ' (?! (?:{_KEPT}) ' ) [^)]* \b (?:false|f)
    | (?P<lock> pg_(?:try_)?advisory_lock )
    """,
    re.IGNORECASE | re.VERBOSE,
)


@contextmanager
def overheard(pgconn: PGconn) -> Generator[list[str], None, None]:
    """Collect what lasts for a session of what is sent in the block; by its first word.

    Filled in at the end. Only what stands in the text of a statement is found.
    """
    found: list[str] = []
    if sys.platform != "linux":
        yield found
        return
    # Without a name, for statements are nobody else's business.
    with TemporaryFile(buffering=0) as file:
        pgconn.trace(file.fileno())
        pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
        try:
            yield found
        finally:
            pgconn.untrace()
        file.seek(0)
        said = file.read().decode("utf-8", "replace")
    for statement in _SENT.findall(said):
        found += [m[m.lastgroup or 0] for m in _LASTING.finditer(statement)]
