"""What a client's statement becomes in a transaction that is never to end.

What begins and ends transactions becomes what begins and ends the client's savepoint.
There is always one while it works, so to begin a transaction is only to remember it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from ._statements import Kind, Statement

HINT: Final = (
    "A transactional pool runs everything in one transaction, which it rolls back in"
    " the end. Use an ordinary pool for this."
)

# What is not to be, said by the server, so that it comes in its turn.
REFUSAL: Final = (
    "DO $edgepool$ BEGIN RAISE SQLSTATE '0A000' USING"
    " MESSAGE = 'a transaction cannot be prepared inside another one',"
    f" HINT = '{HINT}'; END $edgepool$"
)

# What has no effect, and is no error anywhere in a transaction.
NOTHING: Final = ("SAVEPOINT edgepool_nothing", "RELEASE edgepool_nothing")

# What the end of a transaction is to find out. What has fired is to fire again, and
# what is deferred to stay so: therefore it is rolled back.
CHECK: Final = (
    "SAVEPOINT edgepool_check",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "ROLLBACK TO edgepool_check",
    "RELEASE edgepool_check",
)


def _nothing() -> None:
    pass


class Part(NamedTuple):
    """What is still to be answered, and how the answer ends."""

    ends: bytes
    """The letters of the messages that may end it."""
    is_ours: bool = False
    """Whether the client did not ask for it, and so is not to see the answer."""
    tag: str = ""
    """What to say instead of the server's own words for what was done."""
    then: Callable[[], None] = _nothing
    """Called when it has ended well."""
    otherwise: Callable[[], None] = _nothing
    """Called when it has failed."""


class Meaning(NamedTuple):
    """What a statement becomes: others, that are answered as one."""

    sql: list[str]
    tag: str
    then: Callable[[], None] = _nothing
    otherwise: Callable[[], None] = _nothing

    def parts(self, before: tuple[bytes, ...] = ()) -> list[Part]:
        """Return what is to be answered; for each, first what is to be ignored."""
        parts: list[Part] = []
        for _ in self.sql:
            parts.extend(Part(ends, is_ours=True) for ends in before)
            parts.append(Part(b"C", is_ours=True, otherwise=self.otherwise))
        parts[-1] = Part(b"C", False, self.tag, self.then, self.otherwise)
        return parts


class Transacting:
    """A client's transaction, and what its statements become.

    Args:
        number: the client's.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.savepoint: str = f"edgepool_{number}"
        self.is_open = self.is_failed = self.has_savepoints = False
        # What has made it another one than usual; and how much had been written in
        # the session when it began.
        self.modes: str = ""
        self.writes: bytes | None = None
        # Whether a commit, next, would find a transaction that has failed.
        self.undoes = False
        # What it has prepared, by the server's names.
        self.prepared: set[bytes] = set()

    def meaning(self, statement: Statement) -> Meaning | None:
        """Tell what a statement becomes; None if it stays as it is."""
        kind = statement.kind
        if kind is Kind.OTHER:
            return None
        if kind is Kind.SAVEPOINT:
            self.has_savepoints = True
            return None
        if kind is Kind.PREPARE:
            return Meaning([REFUSAL], "")
        if kind is Kind.DEALLOCATE:
            return self._deallocation(statement)
        if kind is Kind.BEGIN:
            modes = "SET TRANSACTION READ ONLY" if statement.says("READ ONLY") else ""
            sql = [modes] if modes else [*NOTHING]
            return Meaning(sql, "BEGIN", lambda: self._begun(modes))
        chains = statement.says("AND CHAIN")
        sql, tag = [f"ROLLBACK TO {self.savepoint}"], "ROLLBACK"
        if kind is Kind.COMMIT and not self.undoes:
            keep = (f"RELEASE {self.savepoint}", f"SAVEPOINT {self.savepoint}")
            sql, tag = [*CHECK, *keep], "COMMIT"
        self.undoes = False
        return Meaning(sql, tag, lambda: self._ended(chains), self._ended)

    def _begun(self, modes: str) -> None:
        self.is_open, self.modes = True, modes

    def _ended(self, chains: bool = False) -> None:
        self.is_open = chains
        self.is_failed = self.has_savepoints = False

    def _deallocation(self, statement: Statement) -> Meaning | None:
        """Let a client deallocate what it has prepared, and not what others have."""
        *_, name = statement.text.replace('"', "").split()
        names, tag = sorted(self.prepared), "DEALLOCATE ALL"
        if name.upper() != "ALL":
            names, tag = [self.own(name.encode())], "DEALLOCATE"
            if names[0] not in self.prepared:
                return None
        sql = [f'DEALLOCATE "{own.decode()}"' for own in names] or [*NOTHING]
        return Meaning(sql, tag, lambda: self.forget(*names))

    def own(self, name: bytes) -> bytes:
        """Give the name that a statement of this client has on the server."""
        return b"edgepool_%d_%b" % (self.number, name)

    def forget(self, *names: bytes) -> None:
        self.prepared -= set(names)
