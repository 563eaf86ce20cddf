"""Which of the servers that a DSN may lead to a pool wants, and whether it has it.

libpq chooses when it connects (`target_session_attrs`). Later a server may become
another: a session learns of that at the end of its next statement, for it is told of
parameters that have changed, and libpq keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args
from weakref import WeakSet

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ._arguments import dsn_of
from ._dsn_parameters import is_mapping

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

Role: TypeAlias = Literal["primary", "standby", "any"]

ATTRS: Final = "target_session_attrs"

# What libpq is asked for, and what else a DSN may ask for that means the same role. A
# primary that is about to hand over takes no writes already, so `read-write` is first.
ADMITTED: Final[Mapping[str, tuple[str, ...]]] = {
    "primary": ("read-write", "primary"),
    "standby": ("standby",),
}

# By what libpq was asked for: what a server reports that is another by now.
_IN_STANDBY: Final = b"in_hot_standby"
_READ_ONLY: Final = b"default_transaction_read_only"
MISPLACED: Final[Mapping[str, tuple[tuple[bytes, bytes], ...]]] = {
    "read-write": ((_IN_STANDBY, b"on"), (_READ_ONLY, b"on")),
    "primary": ((_IN_STANDBY, b"on"),),
    "standby": ((_IN_STANDBY, b"off"),),
}


class Placement:
    """The role that a pool wants its server to have.

    Args:
        role: the pool's argument.
        conninfo: the DSN, or a function that gives it.
        kwargs: further arguments of `connect`, or a function that gives them.
        leave: called when the server is to be left, once for all that were opened.

    Raises:
        ValueError: `role` is none, or something else asks libpq for another one.
    """

    def __init__(
        self,
        role: str,
        conninfo: object,
        kwargs: object,
        leave: Callable[[], object] = lambda: None,
    ) -> None:
        if role not in get_args(Role):
            raise ValueError(
                f"role must be 'primary', 'standby' or 'any', not {role!r}"
            )
        self.role = role
        self._leave = leave
        # What was opened since the server was last left, if the role matters.
        self._there: WeakSet[PGconn] = WeakSet()
        self.lead_to(conninfo, kwargs)

    def lead_to(self, conninfo: object, kwargs: object) -> None:
        """Want a server of this role at an address from now on.

        Raises:
            ValueError: something asks libpq for another role.
        """
        known: Mapping[Any, Any] = kwargs if is_mapping(kwargs) else {}
        self._attrs = self._wanted(dsn_of(conninfo).conninfo, known)
        self._signs = MISPLACED.get(self._attrs or "", ())

    @property
    def matters(self) -> bool:
        """Whether it is anything but "any"."""
        return self._attrs is not None

    def arguments(self, conninfo: str, kwargs: Mapping[str, Any]) -> dict[str, str]:
        """Return what a connect is to have in addition.

        Raises:
            ValueError: something that was not known before asks for another role.
        """
        if self._attrs is None:
            return {}
        self._wanted(conninfo, kwargs)
        return {ATTRS: self._attrs}

    def arrived(self, pgconn: PGconn) -> None:
        """Take note of a session that was opened."""
        if self.matters:
            self._there.add(pgconn)

    def is_misplaced(self, pgconn: PGconn) -> bool:
        """Tell whether a session's server is known to be another; if so, leave it."""
        told = pgconn.parameter_status
        # Before each borrow, and `any` would take twice as long.
        for name, wrong in self._signs:
            if told(name) == wrong:
                self._leave_once(pgconn)
                return True
        return False

    def must_hold(self, pgconn: PGconn) -> None:
        """Raise if a session's server is known to be another by now; leave it."""
        if self.is_misplaced(pgconn):
            raise psycopg.OperationalError(f"the server is no {self.role} any more")

    def took_no_write(
        self, pgconn: PGconn, *, read_only: bool | None, pooled: bool
    ) -> None:
        """Leave a server that has refused to write, if that is its own doing.

        Args:
            pgconn: the session.
            read_only: whether the borrower has asked for a session that takes none.
            pooled: as for `is_to_write`.
        """
        was_to = self.is_to_write(pgconn, pooled)
        if was_to or (was_to is None and not read_only):
            self._leave_once(pgconn)

    def _leave_once(self, pgconn: PGconn) -> None:
        if pgconn in self._there:
            self._there = WeakSet()
            self._leave()

    def is_to_write(self, pgconn: PGconn, pooled: bool) -> bool | None:
        """Tell whether a session that took no write was to take it.

        Args:
            pgconn: the session.
            pooled: a pooler may have kept from us what the server is by now.

        Returns:
            None if that is for the borrower to say: nobody else has made it read-only,
            as far as is known. PostgreSQL tells since 14.
        """
        if self.role != "primary":
            return False
        if self.is_misplaced(pgconn):
            return True
        told = pgconn.parameter_status(_IN_STANDBY) is not None
        return False if told and not pooled else None

    def _wanted(self, conninfo: str, kwargs: Mapping[Any, Any]) -> str | None:
        if self.role == "any":
            return None
        given = kwargs.get(ATTRS) or _attrs_in(conninfo) or "any"
        admitted = ADMITTED[self.role]
        if given not in (*admitted, "any"):
            raise ValueError(f"role={self.role!r} contradicts {ATTRS}={given!r}")
        return admitted[0] if given == "any" else str(given)


def _attrs_in(conninfo: str) -> object:
    try:
        return conninfo_to_dict(conninfo).get(ATTRS)
    except psycopg.Error:
        return None  # the connect will say so
