"""Adapters for pools of the sessions of a fake server."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Event

from ._fake_server import FakeServer
from ._fake_session import FakeSession, Operation


class _Hot:
    """What both adapters have, and what must not wait."""

    def __init__(self, server: FakeServer) -> None:
        self.server: FakeServer = server
        # A pool's deadlines and the server's log are on the same clock.
        self.clock: Callable[[], float] = server.clock

    def introduce(self, entry: object, session: FakeSession) -> None:
        """Have the session end with its entry in the pool."""
        session._tie_to(entry)

    def is_clean(self, session: FakeSession, /) -> bool:
        """Tell whether the session can be lent as it is."""
        return not session.dirty and session._ended_by != "closed"

    def is_alive(self, session: FakeSession, /) -> bool:
        """Tell whether the session has ended."""
        return session._ended_by is None

    def abort(self, session: FakeSession, /) -> None:
        """Cut the session off; an operation under way on it fails."""
        self.server._end_session(session, "aborted")

    def disown(self, session: FakeSession, /) -> None:
        """Let go of the session in a forked child, which has a server of its own."""
        session._ended_by = "disowned"  # without the lock: its holder may be gone
        self.server._sessions.pop(session, None)


class FakeAdapter(_Hot):
    """For a `Pool` of the sessions of a fake server."""

    def connect(self) -> FakeSession:
        """Open a session."""
        session = FakeSession(self.server)
        self._do("connect", session)
        return session

    def check(self, session: FakeSession, /) -> None:
        """Raise if the session has ended, or the test says so."""
        self._do("check", session)

    def reset(self, session: FakeSession, /) -> bool:
        """Make the session clean, unless it is hopeless."""
        self._do("reset", session)
        return not session.dirty

    def close(self, session: FakeSession, /) -> None:
        """End the session."""
        self._do("close", session)

    def _do(self, operation: Operation, session: FakeSession) -> None:
        go_on = Event()
        with self.server._operation(operation, session, go_on.set) as step:
            if step.patience != 0.0:
                go_on.wait(step.patience)


class AsyncFakeAdapter(_Hot):
    """For an `AsyncPool` of the sessions of a fake server."""

    async def connect(self) -> FakeSession:
        """Open a session."""
        session = FakeSession(self.server)
        await self._do("connect", session)
        return session

    async def check(self, session: FakeSession, /) -> None:
        """Raise if the session has ended, or the test says so."""
        await self._do("check", session)

    async def reset(self, session: FakeSession, /) -> bool:
        """Make the session clean, unless it is hopeless."""
        await self._do("reset", session)
        return not session.dirty

    async def close(self, session: FakeSession, /) -> None:
        """End the session."""
        await self._do("close", session)

    async def _do(self, operation: Operation, session: FakeSession) -> None:
        loop = asyncio.get_running_loop()
        go_on = loop.create_future()

        def wake() -> None:  # whoever lets it go on may be in another thread
            loop.call_soon_threadsafe(_resolve, go_on)

        with self.server._operation(operation, session, wake) as step:
            if step.patience != 0.0:
                await asyncio.wait({go_on}, timeout=step.patience)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
