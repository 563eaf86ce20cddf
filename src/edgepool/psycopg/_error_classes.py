"""What PostgreSQL's errors mean to a pool, as a table.

A statement that failed is never repeated, whatever its class: only its author knows
what it did before it failed, and whether it may be done twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import psycopg

from .._core import ErrorClass

log = logging.getLogger("edgepool.pool")

Classify = Callable[[Exception], "ErrorClass | None"]
"""What the user says that an error means; None: what the table says."""

# By SQLSTATE; what is not in here is ordinary.
CLASSES: Final[Mapping[str, ErrorClass]] = {
    # The connection is lost, or the two ends do not understand each other any more.
    "08003": ErrorClass.RETIRE,  # connection_does_not_exist
    "08006": ErrorClass.RETIRE,  # connection_failure
    "08P01": ErrorClass.RETIRE,  # protocol_violation; of a pooler: anything at all
    "25P03": ErrorClass.RETIRE,  # idle_in_transaction_session_timeout
    "57P04": ErrorClass.RETIRE,  # database_dropped
    "57P05": ErrorClass.RETIRE,  # idle_session_timeout
    # The server ends sessions.
    "57P01": ErrorClass.SUSPECT,  # admin_shutdown
    "57P02": ErrorClass.SUSPECT,  # crash_shutdown
    "57P03": ErrorClass.SUSPECT,  # cannot_connect_now
    # It is full.
    "53300": ErrorClass.BACK_OFF,  # too_many_connections
    "53400": ErrorClass.BACK_OFF,  # configuration_limit_exceeded
    # It does not let us in.
    "28000": ErrorClass.CREDENTIALS,  # invalid_authorization_specification
    "28P01": ErrorClass.CREDENTIALS,  # invalid_password
    "3D000": ErrorClass.FAIL_FAST,  # invalid_catalog_name: unknown database
    # It does not know what is asked for.
    "42704": ErrorClass.FAIL_FAST,  # undefined_object: unknown parameter
    # It takes no writes.
    "25006": ErrorClass.READ_ONLY,  # read_only_sql_transaction
}

# A prepared statement whose result has another shape since a table was changed fails
# each time on this connection. The SQLSTATE is that of all that is not supported, and
# the text is translated; the function of the server that says it is neither.
STALE_PLAN: Final = ("0A000", "RevalidateCachedQuery")


def classified(error: Exception, classify: Classify | None, pool: str) -> ErrorClass:
    """Tell what an error means: as the user says, else as the table does.

    Args:
        error: the error.
        classify: asks the user. What it raises is logged, and counts as None.
        pool: the pool's name.
    """
    if classify is not None:
        try:
            said = classify(error)
            if said is not None:
                return ErrorClass(said)
        except Exception:
            log.exception("%s: error in classify", pool)
    # What was found out about a failed connect is with its error.
    found: ErrorClass | None = getattr(error, "_edgepool", None)
    return class_of(error) if found is None else found


def class_of(error: BaseException) -> ErrorClass:
    """Tell what the error of a statement means, or of a connect with its SQLSTATE."""
    if not isinstance(error, psycopg.Error) or error.sqlstate is None:
        return ErrorClass.ORDINARY
    sqlstate = error.sqlstate
    if sqlstate == "08P01":
        # Imported when it is needed, like all that knows texts.
        from ._refusals import pooler_says

        sqlstate = pooler_says(error.diag.message_primary or "") or sqlstate
    elif (sqlstate, error.diag.source_function) == STALE_PLAN:
        return ErrorClass.RETIRE
    return CLASSES.get(sqlstate, ErrorClass.ORDINARY)
