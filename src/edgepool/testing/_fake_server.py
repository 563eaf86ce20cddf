"""A server that does what a test tells it to.

Nothing here opens a socket. A test says when the server is down, slow, full or stuck,
and reads afterwards what the pool asked of it. For pools of threads and of tasks alike;
one server may serve both.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Condition
from time import monotonic
from weakref import WeakKeyDictionary

from ._fake_faults import FakeFaults
from ._fake_session import OPERATIONS, FakeEvent, FakeSession, Operation, Script, Step
from ._faults import must_be_delay

# For how long a test waits for what must have happened long ago, in seconds.
PATIENCE = 30.0


class FakeServer(FakeFaults):
    """Something to connect to, that does as it is told.

    It is up at first, answers at once and takes everybody. The operations are
    `"connect"`, `"check"`, `"reset"` and `"close"`. What is the matter with the server
    is decided when an operation ends, not when it begins: who was stuck in a connect
    when the server went down is refused.

    Any thread may call any method. One that is given another operation raises a
    `ValueError`.

    Args:
        clock: what the log's times are taken from. In a `JumpingLoop`: `loop.time`.
        max_sessions: one more is refused ("too many clients"). None: no limit.
        connect_delay: how long a connect takes, in seconds; see `delay`.

    Raises:
        TypeError, ValueError: `connect_delay` is no number, negative or not finite.

    Attributes:
        log: what happened, in order.
        mistakes: what no pool may do, and this one did: use a session that it has
            closed, close one twice, or have two operations on one at the same time.
        peak: how many sessions there were at most at the same time, counted from the
            moment in which a connect begins.

    Example:
        ```python
        server = FakeServer()
        pool = Pool(FakeAdapter(server), min_size=2, max_size=10)
        pool.open(wait=True)

        server.kill()  # both sessions
        with pool.borrow() as session:
            assert session.alive  # a new one

        server.down()
        server.up()
        pool.close()
        assert not server.sessions and not server.mistakes
        ```
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = monotonic,
        max_sessions: int | None = None,
        connect_delay: float = 0.0,
    ) -> None:
        must_be_delay("connect_delay", connect_delay)
        self.clock: Callable[[], float] = clock
        self.max_sessions: int | None = max_sessions
        self.log: list[FakeEvent] = []
        self.mistakes: list[str] = []
        self.peak: int = 0
        self._refusal: BaseException | None = None
        self._scripts: dict[Operation, Script] = {o: Script() for o in OPERATIONS}
        self._under_way: dict[Step, None] = {}
        # Weakly: who is dropped has ended, whether anybody has said so or not.
        self._sessions = WeakKeyDictionary[FakeSession, None]()
        self._changed = Condition()
        self.delay("connect", connect_delay)

    # --- what a test tells it -----------------------------------------------------

    def up(self) -> None:
        """Accept connects, from now on."""
        with self._changed:
            self._refusal = None

    def refuse(self, error: BaseException) -> None:
        """Answer each connect with this error, until `up`. Sessions go on."""
        with self._changed:
            self._refusal = error

    def down(self, error: BaseException | None = None) -> None:
        """End all sessions and refuse connects, until `up`.

        Args:
            error: what a connect gets. Default: a `ConnectionRefusedError`.
        """
        self.refuse(error or ConnectionRefusedError("the server is down"))
        self.kill()

    def kill(self, *sessions: FakeSession) -> None:
        """End sessions, as an administrator does. Default: all there are."""
        for session in sessions or self.sessions:
            self._end_session(session, "killed")

    def fail(self, operation: Operation, *errors: BaseException) -> None:
        """Let the next operations of a kind fail, each with the next of the errors."""
        with self._changed:
            self._script(operation).errors.extend(errors)

    def fail_always(self, operation: Operation, error: BaseException | None) -> None:
        """Let all operations of a kind fail, until this is called with None."""
        with self._changed:
            self._script(operation).lasting = error

    def delay(self, operation: Operation, seconds: float) -> None:
        """Let operations of a kind take so long, from now on.

        Raises:
            TypeError, ValueError: `seconds` is no number, negative or not finite.
        """
        must_be_delay("seconds", seconds)
        with self._changed:
            self._script(operation).delay = seconds

    def hang(self, operation: Operation) -> None:
        """Let each operation of a kind that begins from now on wait for `release`."""
        with self._changed:
            self._script(operation).hanging = True

    def release(self, operation: Operation, count: int | None = None) -> None:
        """Let go on what hangs.

        Args:
            operation: which kind.
            count: only the first so many; what begins from now on hangs as before.
                Default: all, and nothing hangs any more.
        """
        script = self._script(operation)
        with self._changed:
            if count is None:
                script.hanging = False
            steps = [s for s in self._under_way if s.operation == operation]
            for step in steps[:count]:
                self._let_go(step)

    # --- what it tells a test -----------------------------------------------------

    @property
    def sessions(self) -> tuple[FakeSession, ...]:
        """The sessions that are open, oldest first."""
        with self._changed:
            return tuple(self._sessions)

    @property
    def connects(self) -> int:
        """How many connects have begun; whatever came of them."""
        return self.begun("connect")

    def begun(self, operation: Operation) -> int:
        """Return how many operations of a kind have begun."""
        return self._script(operation).begun

    def under_way(self, operation: Operation) -> int:
        """Return how many operations of a kind have begun and not ended: they hang."""
        self._script(operation)
        with self._changed:
            return sum(step.operation == operation for step in self._under_way)

    def times(self, what: str) -> list[float]:
        """Return when something happened, by the log."""
        return [event.at for event in self.log if event.what == what]

    def wait_until(
        self, condition: Callable[[FakeServer], bool], timeout: float = PATIENCE
    ) -> None:
        """Block until something is true of the server; for tests of threads.

        Args:
            condition: looked at whenever something has happened to the server.
            timeout: a generous guard, in seconds.

        Raises:
            AssertionError: it did not become true in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout):
                raise AssertionError(f"waited in vain; the log: {self.log}")

    def _script(self, operation: Operation) -> Script:
        if operation not in self._scripts:
            raise ValueError(
                f"operation must be one of {[*OPERATIONS]}, not {operation!r}"
            )
        return self._scripts[operation]

    # --- what adapters ask of it --------------------------------------------------

    @contextmanager
    def _operation(
        self, operation: Operation, session: FakeSession, wake: Callable[[], object]
    ) -> Generator[Step, None, None]:
        """Begin an operation; the caller waits as `patience` says; then it ends."""
        step = self._begin(operation, session, wake)
        try:
            yield step
        except BaseException:  # cancelled, interrupted
            self._finish(step, "cancelled")
            raise
        self._finish(step, None)

    def _begin(
        self, operation: Operation, session: FakeSession, wake: Callable[[], object]
    ) -> Step:
        script = self._scripts[operation]
        with self._changed:
            script.begun += 1
            patience = None if script.hanging else script.delay
            step = Step(operation, session, patience, wake)
            if session._step is not None:
                self._mistake(f"{operation} during {session._step.operation}", session)
            if session._closes:
                self._mistake(f"{operation} after close", session)
            session._step = step
            self._under_way[step] = None
            if operation == "connect":
                session.number = script.begun
                connecting = sum(s.operation == "connect" for s in self._under_way)
                self.peak = max(self.peak, connecting + len(self._sessions))
            self._note(operation, session)
            if not session.alive and operation != "close":
                step.patience = 0.0
        return step

    def _finish(self, step: Step, cut_by: str | None) -> None:
        session, operation = step.session, step.operation
        with self._changed:
            self._changed.notify_all()
            del self._under_way[step]
            if session._step is step:
                session._step = None
            error = self._verdict(step)
            if operation == "close":
                session._closes += 1
                self._end(session, "closed")
            if cut_by is not None:
                self._note(f"{operation} {cut_by}", session)
            elif error is not None:
                self._note(f"{operation} failed", session)
                raise error
            elif operation == "connect":
                session._connected = True
                self._sessions[session] = None
                self._note("connected", session)
            elif operation == "reset":
                session.dirty = session.dirty and session.hopeless

    def _verdict(self, step: Step) -> BaseException | None:
        script = self._scripts[step.operation]
        if step.operation != "close" and not step.session.alive:
            return ConnectionResetError(f"the session was {step.session._ended_by}")
        if script.errors:
            return script.errors.popleft()
        if script.lasting is not None:
            return script.lasting
        if step.operation != "connect":
            return None
        if self._refusal is not None:
            return self._refusal
        if self.max_sessions is not None and len(self._sessions) >= self.max_sessions:
            return ConnectionError("too many clients already")
        return None

    def _end_session(self, session: FakeSession, how: str) -> None:
        with self._changed:
            self._end(session, how)

    def _end(self, session: FakeSession, how: str) -> None:
        """Called with the lock held."""
        if session._ended_by is None:
            session._ended_by = how
            self._note(how, session)
        self._sessions.pop(session, None)
        if session._step is not None:
            self._let_go(session._step)

    def _let_go(self, step: Step) -> None:
        step.patience = 0.0
        step.wake()

    def _note(self, what: str, session: FakeSession) -> None:
        self._log(what, session)
        self._changed.notify_all()

    def _log(self, what: str, session: FakeSession) -> None:
        self.log.append(FakeEvent(self.clock(), what, session.number))

    def _mistake(self, what: str, session: FakeSession) -> None:
        self.mistakes.append(f"{what} of session {session.number}")
