"""One session of a server, in one transaction, for many clients.

A listener speaks PostgreSQL's protocol to whoever connects, and passes on to the one
session what they say. What begins and ends a transaction becomes what begins and ends a
savepoint, so each client has transactions as on a connection of its own, and nothing is
ever committed.

A stack of savepoints has one top, so one client works at a time: who is in a
transaction has the session until that ends. Another one may begin his inside it if the
two are used by the same thread or task, which would else wait for itself.

It all runs in the event loop of a thread of its own: it neither knows nor cares whether
the clients are threads, tasks or other processes.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from struct import unpack_from
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg import capabilities
from psycopg.waiting import wait_conn_async

from edgepool import PermanentError
from edgepool.psycopg._cancel import GLANCE, deliver

from ._address import HOST, conninfo
from ._shared_client import Client
from ._turns import Answer, Borrower, Turns
from ._wire import message, problem, without_delay

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

T = TypeVar("T")

# What libpq and others are told at the beginning, of what the server has told us.
TOLD: Final = (
    *(
        "application_name",
        "client_encoding",
        "DateStyle",
        "default_transaction_read_only",
    ),
    *("in_hot_standby", "integer_datetimes", "IntervalStyle", "is_superuser"),
    *("scram_iterations", "search_path", "server_encoding", "server_version"),
    *("session_authorization", "standard_conforming_strings", "TimeZone"),
)

# How one connects in clear, and without asking.
IN_CLEAR: Final = {"sslmode": "disable", "gssencmode": "disable"}

# How long the server may take to roll back at the end, in seconds.
FAREWELL: Final = 5.0


class SharedSession(Turns):
    """A session that many clients use.

    Args:
        pgconn: libpq's connection, which is not used any more from now on, but has to
            live for as long as this.
        patience: how long a transaction may be idle while another one waits, in
            seconds.
        borrower: tells who uses a client, by its number.

    Raises:
        PermanentError: the connection is encrypted, so nobody else can speak on it.
    """

    def __init__(
        self, pgconn: PGconn, patience: float, borrower: Callable[[int], Borrower]
    ) -> None:
        if pgconn.ssl_in_use:
            raise PermanentError(
                "a transactional pool needs a connection that is not encrypted:"
                " say sslmode=disable"
            )
        super().__init__(patience, borrower)
        self.process: int = pgconn.backend_pid & 0xFFFFFFFF  # a pooler invents any
        told = {name: pgconn.parameter_status(name.encode()) for name in TOLD}
        self.parameters = {k.encode(): v for k, v in told.items() if v is not None}
        self._user, self._dbname = pgconn.user.decode(), pgconn.db.decode()
        self._pgconn = pgconn
        self._clients: dict[int, Client] = {}
        self._number = 0
        self._answering: asyncio.Future[Answer] | None = None
        self._error: bytes | None = None
        self._value: bytes | None = None
        self._listener = socket.create_server((HOST, 0), backlog=128)
        self._port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="edgepool-transaction", daemon=True
        )
        self._thread.start()
        self._run(self._start())

    def conninfo(self) -> str:
        """Return what connects to the session."""
        where = {"host": HOST, "port": str(self._port)}
        who = {"user": self._user, "dbname": self._dbname}
        return conninfo({**where, **who, **IN_CLEAR})

    def close(self) -> None:
        """Roll back, and end the session. Does nothing the second time."""
        if self._loop.is_closed() or not self._thread.is_alive():
            return
        try:
            self._run(self._stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._pgconn.finish()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _start(self) -> None:
        # Another descriptor of the same socket: libpq keeps its own, and does not look.
        taken = socket.socket(fileno=os.dup(self._pgconn.socket))
        taken.setblocking(False)
        self._in, self._out = await asyncio.open_connection(sock=taken)
        without_delay(self._out)
        self._hearing = asyncio.create_task(self._hear())
        await self.ask("BEGIN")
        self._server = await asyncio.start_server(self._arrived, sock=self._listener)

    async def _stop(self) -> None:
        self._server.close()
        serving = [c.task for c in self._clients.values() if c.task is not None]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        if not self.lost:
            # Not before it has rolled back: what comes next is not to wait for locks.
            self._out.write(message(b"Q", b"ROLLBACK\0") + message(b"X"))
            await asyncio.wait({self._hearing}, timeout=FAREWELL)
        self._hearing.cancel()
        await asyncio.gather(self._hearing, return_exceptions=True)
        self._out.close()
        with suppress(OSError):
            await self._out.wait_closed()
        await self._loop.shutdown_default_executor()

    async def _arrived(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._number += 1
        client = Client(self, self._number, reader, writer)
        self._clients[client.number] = client
        try:
            await client.run()
        except (asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            pass  # a task of asyncio's own, which would report it
        finally:
            del self._clients[client.number]
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    # --- the server's side --------------------------------------------------------

    def send(self, kind: bytes, body: bytes) -> None:
        """Say something to the server."""
        self._out.write(message(kind, body))

    async def ask(self, sql: str) -> Answer:
        """Have the server do something for our own purposes.

        Raises:
            ConnectionError: the session has ended.
        """
        if self.lost:
            raise ConnectionError(self.lost)
        self._answering = self._loop.create_future()
        self._error = self._value = None
        self.send(b"Q", sql.encode() + b"\0")
        return await self._answering

    async def _hear(self) -> None:
        try:
            while True:
                head = await self._in.readexactly(5)
                (length,) = unpack_from("!I", head, 1)
                body = await self._in.readexactly(length - 4)
                self._heard(head[:1], body)
        except (asyncio.IncompleteReadError, OSError):
            self._end("the session of the transactional pool has ended")

    def _heard(self, kind: bytes, body: bytes) -> None:
        if kind == b"S":
            name, value, _ = body.split(b"\0")
            self.parameters[name] = value
            for client in self._clients.values():
                client.tell(kind, body)
        elif kind == b"Z" and body == b"I" and self._stack:
            self._end("the transaction of the transactional pool has ended")
        elif self._answering is None:
            if self._busy is not None:
                self._busy.answer(kind, body)
        elif kind == b"E":
            self._error = self._error or body
        elif kind == b"D":
            self._value = body[6:]
        elif kind == b"Z":
            answering, self._answering = self._answering, None
            if not answering.done():  # nobody was to wait any more
                answering.set_result(Answer(self._error, self._value))

    def _end(self, why: str) -> None:
        """Send everybody away: there is no transaction any more."""
        self.lost = why
        if self._answering is not None and not self._answering.done():
            self._answering.set_exception(ConnectionError(why))
            self._answering.exception()  # there may be nobody to look at it
        for client in self._clients.values():
            client.tell(*problem("57P01", why))
            if client.task is not None:
                client.task.cancel()

    async def cancel(self, process: int, key: int) -> None:
        """Have the server end what a client has it do, if it is the one."""
        if self._busy is None or (process, key) != (self.process, self._busy.key):
            return
        with suppress(psycopg.Error, OSError):  # it is gone, or does not answer
            if not capabilities.has_cancel_safe():
                await self._loop.run_in_executor(None, self._pgconn.get_cancel().cancel)
                return
            # The other one blocks all threads, of which one may be a proxy's.
            request = self._pgconn.cancel_conn()
            try:
                await wait_conn_async(deliver(request), interval=GLANCE)
            finally:
                request.finish()
