"""A client of a shared session: what it says, what it means there, what it is told.

A unit is what a client sends up to the point where it waits: a query, or an extended
one with its Sync. Each runs in the client's savepoint. When it has ended and the client
is in no transaction, what it did is kept or undone, as a server does with a statement
that stands alone.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import struct
from collections import deque
from random import SystemRandom
from typing import TYPE_CHECKING, Final

from ._meanings import HINT, Part, Transacting
from ._statements import Kind, Statement, split
from ._wire import (
    CANCEL_REQUEST,
    GSS_REQUEST,
    SSL_REQUEST,
    VERSION,
    fields_of,
    message,
    without_delay,
)

if TYPE_CHECKING:
    from ._shared_session import SharedSession

# Of our own making, in a client's mailbox.
GONE: Final = b"gone"
READY: Final = b"ready"

# What a client says that is answered at its next Sync or Flush.
EXTENDED: Final = (b"P", b"B", b"D", b"E", b"C", b"H")

# What a client says of a COPY, and what a server says that begins one from the client.
COPYING: Final = (b"d", b"c", b"f")
COPY_IN: Final = (b"G", b"W")

# Errors for which one transaction around everything is the reason.
NOT_IN_TRANSACTION: Final = ("25001", "2D000")


class Client(Transacting):
    """Somebody who has connected.

    Args:
        session: the session that is shared.
        number: the client's own.
        reader: what it sends.
        writer: what it is told.
    """

    def __init__(
        self,
        session: SharedSession,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        without_delay(writer)
        super().__init__(number)
        self.key: int = SystemRandom().getrandbits(31)
        self.task: asyncio.Task[None] | None = asyncio.current_task()
        self._session = session
        self._reader = reader
        self._writer = writer
        self._mailbox: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
        self._later: deque[tuple[bytes, bytes]] = deque()
        self._parts: deque[Part] = deque()
        self._held = b""
        self._holds = True
        self._copying = False
        # What is meant by a name.
        self._statements: dict[bytes, Statement] = {}
        self._portals: dict[bytes, Statement] = {}

    async def run(self) -> None:
        """Serve the client until it leaves."""
        if not await self._start():
            return
        reading = asyncio.create_task(self._read())
        try:
            await self._serve()
            self._writer.close()  # it is not to wait for others to end
            await self._session.leave(self)
        finally:
            reading.cancel()

    def tell(self, kind: bytes, body: bytes) -> None:
        """Say something to the client, unless it has gone."""
        if not self._writer.is_closing():
            self._writer.write(message(kind, body))

    # --- what it says -------------------------------------------------------------

    async def _start(self) -> bool:
        """Let the client in; False if it only came to cancel something."""
        while True:
            (length,) = struct.unpack("!I", await self._reader.readexactly(4))
            body = await self._reader.readexactly(length - 4)
            (code,) = struct.unpack_from("!I", body)
            if code in (SSL_REQUEST, GSS_REQUEST):
                self._writer.write(b"N")
                continue
            if code == CANCEL_REQUEST:
                await self._session.cancel(*struct.unpack_from("!II", body, 4))
                return False
            break
        if code > VERSION:  # the minor version that we have, and no options
            self.tell(b"v", struct.pack("!II", VERSION, 0))
        self.tell(b"R", bytes(4))
        number = {b"edgepool.client": str(self.number).encode()}
        for name, value in {**self._session.parameters, **number}.items():
            self.tell(b"S", name + b"\0" + value + b"\0")
        self.tell(b"K", struct.pack("!II", self._session.process, self.key))
        self.tell(b"Z", b"I")
        return True

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(5)
                (length,) = struct.unpack_from("!I", head, 1)
                body = await self._reader.readexactly(length - 4)
                self._mailbox.put_nowait((head[:1], body))
        except (asyncio.IncompleteReadError, OSError):
            self._mailbox.put_nowait((GONE, b""))

    async def _next(self) -> tuple[bytes, bytes]:
        return self._later.popleft() if self._later else await self._mailbox.get()

    async def _serve(self) -> None:
        while True:
            kind, body = await self._next()
            if kind in (GONE, b"X"):
                return
            if kind in (*COPYING, b"H"):
                continue  # left over from a COPY that has failed; or nothing to flush
            if not await self._session.claim(self):
                self.tell(*self._session.refusal(self))
                return
            try:
                await self._unit(kind, body)
            finally:
                self._session.release()

    async def _unit(self, kind: bytes, body: bytes) -> None:
        session = self._session
        self.undoes, self._holds = self.is_failed, True
        while kind in EXTENDED:
            self._extended(kind, body)
            if not self._later and self._mailbox.empty():
                session.wait_for_client()
            kind, body = await self._next()
        if kind == b"Q":
            self._query(body)
        elif kind == b"F":  # a call of a function, as of large objects
            session.send(kind, body)
        else:  # its end, or the client's
            if kind != b"S":
                self._later.appendleft((kind, body))
            session.send(b"S", b"")
        session.wait_for_client(False)
        status = await self._ready()
        self.is_failed = self.is_open and status == b"E"
        error = None
        if not self.is_open:
            self.has_savepoints, self.modes = False, ""
            if status == b"E":
                await session.drop(self)
            elif (error := await session.keep(self)) is not None:
                self._held = b""  # it was not done after all
        self._flush()
        if error is not None:
            self.tell(b"E", error)
        self.tell(b"Z", status if self.is_open else b"I")

    async def _ready(self) -> bytes:
        """Wait for the end of a unit; what the client sends meanwhile has to wait."""
        patience: float | None = None
        while True:
            try:
                kind, body = await asyncio.wait_for(self._mailbox.get(), patience)
            except asyncio.TimeoutError:
                # Nobody waits for this any more, but others may wait to begin.
                patience = None
                await self._session.cancel(self._session.process, self.key)
                continue
            if kind == READY:
                self._copying = False
                return body
            if kind in COPYING:
                self._session.send(kind, body)
                self._session.wait_for_client(kind == b"d")
            elif kind == b"S" and self._copying:  # the server did not heed the first
                self._copying = False
                self._session.send(kind, body)
            elif kind in (GONE, b"X"):
                self._later.append((kind, body))
                patience = self._session.patience
                if self._copying:
                    self._copying = False
                    self._session.send(b"f", b"the client has gone\0")
            else:
                self._later.append((kind, body))

    # --- what it means ------------------------------------------------------------

    def _query(self, body: bytes) -> None:
        text = body[:-1].decode("utf-8", "surrogateescape")
        statements = split(text)
        meanings = [self.meaning(statement) for statement in statements]
        if any(meanings):
            said: list[str] = []
            for statement, meaning in zip(statements, meanings, strict=True):
                if meaning is None:
                    said.append(statement.text)
                    self._parts.append(Part(b"CI"))
                else:
                    said += meaning.sql
                    self._parts += meaning.parts()
            # Each on a line of its own: one may end with a comment.
            body = "\n;".join(said).encode("utf-8", "surrogateescape") + b"\0"
        self._session.send(b"Q", body)

    def _extended(self, kind: bytes, body: bytes) -> None:
        """Pass on a part of an extended query, under names of the client's own."""
        if kind == b"P":
            name, rest = body.split(b"\0", 1)
            own = self.own(name)
            if not name:  # one without a name may take the place of another
                self._expect(b"C", b"S" + own + b"\0", Part(b"3", is_ours=True))
            text = rest.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
            found = split(text)
            self._statements[name] = found[0] if found else Statement("", Kind.OTHER)
            known = {own} if name else set[bytes]()
            part = Part(b"1", then=lambda: self.prepared.update(known))
            self._expect(kind, own + b"\0" + rest, part)
        elif kind == b"B":
            portal, name, rest = body.split(b"\0", 2)
            if name in self._statements:
                self._portals[portal] = self._statements[name]
            names = self._own_portal(portal) + b"\0" + self.own(name) + b"\0"
            self._expect(kind, names + rest, Part(b"2"))
        elif kind in (b"D", b"C"):
            what, name = body[:1], body[1:-1]
            own = self.own(name) if what == b"S" else self._own_portal(name)
            part = Part(b"Tn")
            if kind == b"C":
                part = Part(b"3", then=lambda: self.forget(own))
            self._expect(kind, what + own + b"\0", part)
        elif kind == b"E":
            self._execute(body)
        else:
            self._holds = self._holds and kind != b"H"
            self._session.send(kind, body)

    def _execute(self, body: bytes) -> None:
        portal, rest = body.split(b"\0", 1)
        statement = self._portals.get(portal)
        meaning = None if statement is None else self.meaning(statement)
        if meaning is None:
            names = self._own_portal(portal) + b"\0"
            self._expect(b"E", names + rest, Part(b"CIs"))
            return
        # The statement and the portal without a name are free: a client has no such.
        for sql in meaning.sql:
            self._session.send(b"P", b"\0" + sql.encode() + bytes(3))
            self._session.send(b"B", bytes(8))
            self._session.send(b"E", bytes(5))
        self._parts += meaning.parts((b"1", b"2"))

    def _own_portal(self, name: bytes) -> bytes:
        """Give the name that a portal of this client has on the server.

        One that it has not bound is a cursor, declared in SQL. One without a name lives
        for as long as a unit of its client's.
        """
        return self.own(name) if name and name in self._portals else name

    def _expect(self, kind: bytes, body: bytes, part: Part) -> None:
        self._parts.append(part)
        self._session.send(kind, body)

    # --- what it is told ----------------------------------------------------------

    def answer(self, kind: bytes, body: bytes) -> None:
        """Take what the server says to this client."""
        if kind == b"Z":
            self._parts.clear()
            self._mailbox.put_nowait((READY, body))
            return
        part = self._parts[0] if self._parts else Part(b"")
        if kind == b"E":
            part.otherwise()
            self._parts.clear()
            body = _with_hint(body)
        elif kind in part.ends:
            self._parts.popleft()
            part.then()
        if kind in COPY_IN:
            self._copying = True
            self._session.wait_for_client()
        if part.is_ours and kind != b"E":
            return
        self._flush()
        if kind != b"C":
            self.tell(kind, body)
            return
        if part.tag:
            body = part.tag.encode() + b"\0"
        self._held = message(kind, body)
        if self.is_open or not self._holds:
            self._flush()

    def _flush(self) -> None:
        """Say what was held back until it was clear that it is true."""
        held, self._held = self._held, b""
        if held and not self._writer.is_closing():
            self._writer.write(held)


def _with_hint(body: bytes) -> bytes:
    fields = fields_of(body)
    if fields.get("C") in NOT_IN_TRANSACTION and "H" not in fields:
        return body[:-1] + b"H" + HINT.encode() + bytes(2)
    return body
