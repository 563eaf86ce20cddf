"""psycopg's words for what a connection is doing, as plain ints.

They compare faster than enums, and that is done at each borrow and return.
"""

from __future__ import annotations

from typing import Final

from psycopg.pq import ConnStatus, TransactionStatus

# Of a session.
IDLE: Final = int(TransactionStatus.IDLE)
ACTIVE: Final = int(TransactionStatus.ACTIVE)
INTRANS: Final = int(TransactionStatus.INTRANS)
INERROR: Final = int(TransactionStatus.INERROR)
UNKNOWN: Final = int(TransactionStatus.UNKNOWN)  # it is closed or lost

# Of a connection.
OK: Final = int(ConnStatus.OK)
BAD: Final = int(ConnStatus.BAD)
