"""Who may work on the one session, and where on its stack of savepoints.

One client works at a time. Its transaction has to be on top of the stack, or else its
end would be the end of those above.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from ._meanings import CHECK
from ._wire import problem

if TYPE_CHECKING:
    from ._shared_client import Client

# A number that grows with whatever is written: each savepoint in which something is
# written has a lock on its own transaction id, to the end of the transaction.
WRITES: Final = (
    "SELECT count(*) FROM pg_locks"
    " WHERE locktype = 'transactionid' AND pid = pg_backend_pid()"
)


class Borrower(NamedTuple):
    """Who uses a client, as far as that is known."""

    owner: object = None
    """The identity of a thread or a task. None: not known."""
    place: str = ""
    """Where it was borrowed: file and line."""


class Answer(NamedTuple):
    """What came of something that was sent for our own purposes."""

    error: bytes | None
    value: bytes | None


class Turns:
    """The part of a shared session that decides whose turn it is.

    Args:
        patience: how long a transaction may be idle while another one waits.
        borrower: tells who uses a client, by its number.
    """

    def __init__(self, patience: float, borrower: Callable[[int], Borrower]) -> None:
        self.patience = patience
        self.borrower = borrower
        self.lost: str = ""
        # Who has a savepoint, the outermost first; who works on the session just now.
        self._stack: list[Client] = []
        self._busy: Client | None = None
        # One at a time looks whether it may.
        self._trying = asyncio.Lock()
        # Set whenever somebody who waits should look again.
        self._changed = asyncio.Event()
        # Since when it is a client's turn to do something; None: it is the server's.
        self._quiet_since: float | None = monotonic()

    @abstractmethod
    async def ask(self, sql: str) -> Answer:
        """Have the server do something for our own purposes."""

    async def claim(self, client: Client) -> bool:
        """Wait until a client may work, and has a savepoint; False if it never may."""
        while True:
            async with self._trying:
                if self._busy is None and await self._make_way(client):
                    self._busy = client
                    self.wait_for_client(False)
                    return True
                changed = self._changed
            if not await self._something(changed):
                return False

    def release(self) -> None:
        """Let others have their turn."""
        self._busy = None
        self.wait_for_client()

    def wait_for_client(self, waits: bool = True) -> None:
        """Note whose turn it is: a client's, or the server's."""
        self._quiet_since = monotonic() if waits else None
        self._changed.set()
        self._changed = asyncio.Event()

    async def _something(self, changed: asyncio.Event) -> bool:
        """Wait; False if for too long there was nothing that the server had to do."""
        timeout = None
        if self._quiet_since is not None:
            timeout = self._quiet_since + self.patience - monotonic()
            if timeout <= 0:
                return False
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(changed.wait(), timeout)
        return True

    async def _make_way(self, client: Client) -> bool:
        """Bring a client to the top of the stack."""
        if client in self._stack:
            while self._stack[-1] is not client:
                if not await self._set_aside(self._stack[-1]):
                    return False
            return True
        # Also of its own borrower, so that only one that has to stays below another.
        while self._stack and not await self._set_aside(self._stack[-1]):
            if not self._may_nest(client, self._stack[-1]):
                return False
            break
        self._stack.append(client)
        await self._begin(client)
        return True

    def _may_nest(self, inner: Client, outer: Client) -> bool:
        owner = self.borrower(inner.number).owner
        return owner is not None and owner == self.borrower(outer.number).owner

    async def _begin(self, client: Client) -> None:
        answer = await self.ask(f"SAVEPOINT {client.savepoint}; {WRITES}")
        client.writes = answer.value
        if client.modes:
            await self.ask(client.modes)
        if client.is_failed:  # it was set aside, and is to find itself as it was
            await self.ask("SELECT 1 / 0")

    async def _set_aside(self, client: Client) -> bool:
        """Take a transaction off the stack that has nothing to roll back.

        It has only read, or it has failed; it goes on when its client does.
        """
        if client.has_savepoints:
            return False
        if client.is_failed:
            await self.undo(client)
        elif (await self.ask(WRITES)).value != client.writes:
            return False
        await self.ask(f"RELEASE {client.savepoint}")
        self._stack.remove(client)
        return True

    async def undo(self, client: Client) -> None:
        """Roll back what a client has done since its savepoint, which stays."""
        await self.ask(f"ROLLBACK TO {client.savepoint}")

    async def keep(self, client: Client) -> bytes | None:
        """Keep what a client has done; or roll it back, and return the error."""
        answer = await self.ask("; ".join((*CHECK, f"RELEASE {client.savepoint}")))
        if answer.error is not None:
            await self.drop(client)
        else:
            self._stack.remove(client)
        return answer.error

    async def drop(self, client: Client) -> None:
        """Roll back what a client has done, with its savepoint."""
        await self.undo(client)
        await self.ask(f"RELEASE {client.savepoint}")
        self._stack.remove(client)

    async def leave(self, client: Client) -> None:
        """Roll back what a client has left open, as soon as it is on top."""
        if client not in self._stack or self.lost:
            return
        while not await self.claim(client):
            self.wait_for_client()
        try:
            await self.drop(client)
        finally:
            self.release()

    def refusal(self, client: Client) -> tuple[bytes, bytes]:
        """Say to whom it was not given, why."""
        holder = self._busy or self._stack[-1]
        place = self.borrower(holder.number).place
        where = f" (borrowed at {place})" if place else ""
        if client in self._stack and holder in self._stack:
            text = f"a transaction that has begun inside this one is still open{where}"
        else:
            text = (
                "the transactional pool has one session, and a transaction on it has"
                f" been idle for {self.patience:g} s{where}"
            )
        hint = (
            "Commit it or roll it back first. One transaction runs at a time; another"
            " one can run inside it if one thread or task has borrowed both."
        )
        return problem("55P03", text, hint)
