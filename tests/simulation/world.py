"""A world in which hours pass in milliseconds, for a core and all that is around it.

There is a clock that jumps from event to event, a server that goes down and comes back,
and clients who come at random, wait with limited patience, use a connection for a while
and return it. Everything is drawn from one seed: the same seed, the same history.

The driver in here does what the real ones do (see `edgepool._flows`): it probes what
was idle before it lends it, and never lends what is dead.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any

from edgepool._core import (
    Abort,
    Alarm,
    Check,
    Close,
    Connect,
    Entry,
    ErrorClass,
    PoolCore,
    Refusal,
    Reset,
    Settings,
    State,
    Waiter,
)

PROBE_AFTER = 100e-6
DEFAULTS = {"check_after": math.inf, "probe_after": PROBE_AFTER}
"""As in the pools of real connections: what was idle for longer is probed."""


class Session:
    """A connection, as the server has it."""

    def __init__(self, now: float) -> None:
        self.opened_at = now
        self.died_at = math.inf

    @property
    def alive(self) -> bool:
        """Tell whether neither side has ended it."""
        return self.died_at == math.inf


@dataclass
class Server:
    """Opens sessions when it is up, and ends them all when it goes down."""

    connect_time: float = 0.02
    refusal_time: float = 0.001
    up: bool = True
    sessions: list[Session] = field(default_factory=list)
    peak: int = 0

    def kill(self, now: float, count: int) -> None:
        """End the oldest sessions."""
        for session in self.sessions[:count]:
            session.died_at = now
        del self.sessions[:count]

    def open(self, now: float) -> Session:
        """Open a session; or do not."""
        if not self.up:
            raise ConnectionRefusedError("the server is down")
        session = Session(now)
        self.sessions.append(session)
        self.peak = max(self.peak, len(self.sessions))
        return session

    def close(self, now: float, session: Session) -> None:
        """End a session for its client."""
        if session.alive:
            session.died_at = now
            self.sessions.remove(session)


@dataclass
class Client:
    """Somebody who wants a connection: when he came, and how it went."""

    came: float
    hold: float
    patience: float
    # Whether he is cancelled at the end of his patience, instead of timing out.
    fickle: bool = False
    served: float | None = None
    refused: Refusal | None = None
    left: float | None = None

    @property
    def waited(self) -> float:
        """How long it took until he had a connection, or none."""
        answered = self.left if self.served is None else self.served
        assert answered is not None, "forgotten"
        return answered - self.came


class World:
    """A pool with its driver, its server and its clients.

    Args:
        seed: of all that is random.
        settings: those of the pool.
    """

    def __init__(self, seed: int = 0, **settings: Any) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self.server = Server()
        self.core = PoolCore[Session](
            Settings(
                **{"check_after": math.inf, "probe_after": PROBE_AFTER, **settings}
            ),
            jitter=self.random.random,
        )
        self.clients: list[Client] = []
        # When each connect began, and how many were under way at that moment.
        self.connects: list[tuple[float, int]] = []
        self.alarms: list[float] = []
        # How old what was lent was at most.
        self.oldest = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._timer = math.inf
        self.tell(self.core.start)

    # --- time ---------------------------------------------------------------------

    def at(self, moment: float, act: Callable[[], None]) -> None:
        """Have something happen at a moment; first what was called first."""
        self._count += 1
        heappush(self._agenda, (moment, self._count, act))

    def after(self, delay: float, act: Callable[[], None]) -> None:
        """Have something happen after a delay."""
        self.at(self.now + delay, act)

    def run(self, until: float) -> None:
        """Let everything happen up to a moment."""
        agenda = self._agenda
        while agenda and agenda[0][0] <= until:
            self.now, _, act = heappop(agenda)
            act()
        self.now = until

    def outage(self, start: float, length: float) -> None:
        """Have the server end all sessions, and refuse new ones for so long."""

        def go_down() -> None:
            self.server.up = False
            self.server.kill(self.now, len(self.server.sessions))

        def come_back() -> None:
            self.server.up = True

        self.at(start, go_down)
        self.at(start + length, come_back)

    # --- the driver ---------------------------------------------------------------

    def tell(self, event: Callable[..., Any], *args: Any) -> Any:
        """Tell the core a fact; see to what it wants done."""
        core = self.core
        result = event(self.now, *args)
        wakes, core.wakes = core.wakes, []
        commands, core.commands = core.commands, []
        for waiter in wakes:
            waiter.wake()
        for command in commands:
            self._perform(command)
        if core.wake_at < self._timer:
            self._timer = core.wake_at
            self.at(max(self._timer, self.now), self._on_time)
        return result

    def _on_time(self) -> None:
        if self.now >= self._timer:
            self._timer = math.inf
            self.tell(self.core.tick)

    def _perform(self, command: Any) -> None:
        if isinstance(command, Connect):
            self._connect(command.entry)
        elif isinstance(command, Close):
            self.server.close(self.now, command.entry.resource)
            self.tell(self.core.was_closed, command.entry)
        elif isinstance(command, Reset):
            alive = command.entry.resource.alive
            self.after(
                0.001, lambda: self.tell(self.core.was_reset, command.entry, alive)
            )
        elif isinstance(command, Check):
            alive = command.entry.resource.alive
            self.tell(self.core.checked, command.entry, alive, alive)
        elif isinstance(command, Abort):
            self.server.close(self.now, command.entry.resource)
        elif isinstance(command, Alarm):
            self.alarms.append(self.now)

    def _connect(self, entry: Entry[Session]) -> None:
        server = self.server
        self.connects.append((self.now, self.core.statistics().opening))
        took = server.connect_time if server.up else server.refusal_time

        def end() -> None:
            try:
                session = server.open(self.now)
            except OSError as error:
                self.tell(self.core.connect_failed, entry, error, ErrorClass.ORDINARY)
            else:
                self.tell(self.core.connected, entry, session, took)

        self.after(took, end)

    # --- clients ------------------------------------------------------------------

    def come(
        self, hold: float = 0.05, patience: float = 30.0, fickle: bool = False
    ) -> Client:
        """Let a client come now."""
        client = Client(self.now, hold, patience, fickle)
        self.clients.append(client)
        self._borrow(client, self.core.borrow(self.now, None))
        return client

    def crowd(
        self, rate: Callable[[float], float] | float, until: float, **client: Any
    ) -> None:
        """Let clients come at random until a moment, so many per second on average."""
        per_second = rate(self.now) if callable(rate) else rate
        pause = self.random.expovariate(per_second)
        if self.now + pause < until:
            self.after(pause, lambda: self._come_and_follow(rate, until, client))

    def _come_and_follow(self, rate: Any, until: float, client: dict[str, Any]) -> None:
        mean = client.get("hold", 0.05)
        drawn = {**client, "hold": self.random.expovariate(1 / mean)}
        self.come(**drawn)
        self.crowd(rate, until, **client)

    def _borrow(
        self, client: Client, entry: Entry[Session] | None, again: bool = False
    ) -> None:
        """Go on with an entry, if there is one and it is alive; else wait."""
        core = self.core
        while entry is not None:
            if core.is_overdue(self.now, entry):
                self.tell(core.overdue, entry)
            elif self.now < entry.due_at or self._is_alive(entry):
                self._use(client, entry)
                return
            else:
                for suspect in self.tell(core.lost, entry):
                    alive = suspect.resource.alive
                    self.tell(core.checked, suspect, alive, False)
            entry, again = core.borrow(self.now, None), True
        self._wait(client, again)

    def _is_alive(self, entry: Entry[Session]) -> bool:
        self.core.examine(self.now, entry)
        return entry.resource.alive

    def _wait(self, client: Client, again: bool) -> None:
        deadline = client.came + client.patience

        def wake() -> None:
            if waiter.entry is not None:
                self.after(0.0, wake_up)
            elif client.left is None:
                client.refused = waiter.refusal
                client.left = self.now

        def wake_up() -> None:
            entry, waiter.entry = waiter.entry, None
            if entry is not None:  # else he was cancelled in between
                self._borrow(client, entry, again=True)

        def lose_patience() -> None:
            if waiter.resolved and waiter.entry is None:
                return
            if client.fickle:
                client.left = self.now
                self.tell(self.core.abandon, waiter)
            elif not waiter.resolved:
                self.tell(self.core.time_out, waiter)
                wake()

        waiter = Waiter[Session](wake)
        self.tell(self.core.enqueue, waiter, again)
        if not waiter.resolved:
            self.at(max(deadline, self.now), lose_patience)

    def _use(self, client: Client, entry: Entry[Session]) -> None:
        assert entry.state is State.IN_USE
        assert self.now < entry.resource.died_at + PROBE_AFTER, "dead, and lent"
        self.oldest = max(self.oldest, self.now - entry.resource.opened_at)
        client.served = self.now
        self.after(client.hold, lambda: self._return(client, entry))

    def _return(self, client: Client, entry: Entry[Session]) -> None:
        client.left = self.now
        core = self.core
        if not entry.resource.alive:
            self.tell(core.give_back_broken, entry)
        elif self.random.random() < 0.01:
            self.tell(core.give_back_dirty, entry)
        else:
            follow_up = core.give_back(self.now, entry)
            if follow_up is not None:
                self.tell(follow_up, entry)

    # --- what can be told afterwards ----------------------------------------------

    def history(self) -> list[tuple[float, float, Refusal | None]]:
        """Give what became of each client."""
        return [(c.came, c.waited, c.refused) for c in self.clients]

    def waits(self, since: float = 0.0, until: float = math.inf) -> list[float]:
        """Give how long those waited who came in a stretch of time and were served."""
        return [
            client.waited
            for client in self.clients
            if since <= client.came < until and client.served is not None
        ]

    def busiest_second(self, since: float, until: float) -> int:
        """Tell how many connects began within one second, at most."""
        busiest, latest = 0, deque[float]()
        for moment, _ in self.connects:
            if since <= moment < until:
                latest.append(moment)
                while latest[0] <= moment - 1.0:
                    latest.popleft()
                busiest = max(busiest, len(latest))
        return busiest
