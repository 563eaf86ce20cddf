"""The sequences of I/O around the core's decisions, written once for both drivers.

Plain `async def` that imports neither asyncio nor threading. In asyncio they are
awaited as usual. In threads every awaitable in them blocks instead of suspending, so
that `run` brings a flow to its end in one step (the trick is gel's blocking client's).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

from ._adapter import AsyncAdapter, PermanentError
from ._core import (
    Abort,
    Check,
    Close,
    Command,
    Connect,
    Entry,
    ErrorClass,
    PoolCore,
    Reset,
    State,
    Sweep,
)

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

connect_log = logging.getLogger("edgepool.connect")
retire_log = logging.getLogger("edgepool.retire")

# Bugs in the user's callables: waiting does not mend them. Not ValueError, which is
# also what a token service's garbled answer raises, and not OSError.
PROGRAMMING_ERRORS = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    TypeError,
)

# What a check or a reset may take, in seconds, before the connection is given up: a
# healthy server answers in milliseconds.
ROUND_TRIP = 10.0
# What the user's configuration of a new connection may take, in seconds: whoever waits
# for it has given up by then, for this is the default of a borrow's timeout.
CONFIGURE = 30.0
# How many different errors of one outage are worth a warning each.
FACES = 5
# What a due check may take for a caller who does not want to wait (timeout=0).
CHECK_AT_ONCE = 1.0


# Where an entry is that a borrower has.
OUT = (State.IN_USE, State.ABORTED)


class Patience(NamedTuple):
    """Since when a borrower has waited, until when he may, and who that is."""

    since: float
    until: float
    owner: object
    """The identity of a thread or task; None: any may return what is borrowed."""


class Driver(Protocol[T]):
    """What a flow needs of a driver."""

    name: str
    faces: set[str]
    """What the errors of the present outage say."""
    core: PoolCore[T]
    adapter: AsyncAdapter[T]
    """How to handle the resources."""
    is_alive: Callable[[T], bool]
    clock: Callable[[], float]
    introduce: Callable[[Entry[T], T], None]
    """Make an entry and its new resource known to each other, if that is wanted."""
    configure: Callable[[T], Coroutine[Any, Any, None]] | None
    """Prepare a new resource, within a deadline, if the adapter has such a step."""
    classify: Callable[[Exception], ErrorClass]
    """Tell what the error of a connect means."""
    lasts: Callable[[T], float]
    """Tell how long a new resource may be used, in seconds."""
    cancel: Callable[[T], Coroutine[Any, Any, None]] | None
    """Have the other side stop working for what is to be closed, if it can be told."""

    def tell(
        self, event: Callable[Concatenate[float, P], R], *args: P.args, **kw: P.kwargs
    ) -> R:
        """Tell the core a fact, with the time; then see to what it wants done."""
        ...

    async def wait(self, patience: Patience, again: bool) -> Entry[T]:
        """Wait in the queue for an entry; raise what the user is to see."""
        ...

    def timed_out(self, patience: Patience) -> Exception:
        """Make the error for a borrower who has no time left."""
        ...

    async def bounded(
        self, work: Coroutine[Any, Any, R], entry: Entry[T], deadline: float
    ) -> R:
        """Await I/O on a resource; at the deadline give the resource up and raise."""
        ...

    async def sound(self) -> None:
        """Sound the alarm: run the user's `reconnect_failed`."""
        ...


def run(flow: Coroutine[Any, Any, T]) -> T:
    """Run a flow whose awaitables all block."""
    try:
        flow.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        flow.close()
    raise RuntimeError("a blocking flow tried to suspend")


async def verified(driver: Driver[T], entry: Entry[T], patience: Patience) -> Entry[T]:
    """Return a borrowed entry that is alive: this one, or the next one that is."""
    core = driver.core
    try:
        while (now := driver.clock()) >= entry.due_at:
            if core.is_overdue(now, entry):
                driver.tell(core.overdue, entry)
                entry = await _another(driver, patience)
            elif not driver.is_alive(entry.resource):
                entry = await instead_of_dead(driver, entry, patience)
            elif not core.examine(now, entry):
                break
            elif await _passes_check(driver, now, entry, patience):
                break
            else:
                _sweep(driver, driver.tell(core.lost, entry))
                if patience.since < patience.until <= driver.clock():
                    raise driver.timed_out(patience)  # no time for another check
                entry = await _another(driver, patience)
        return entry
    except BaseException:
        given_up(driver, entry)
        raise


def given_up(driver: Driver[T], entry: Entry[T] | None) -> None:
    """See to an entry whose borrower was interrupted before he got it.

    It may have been in mid-check, so its state is unknown. If it is not out any more,
    the core has been told already what became of it.
    """
    if entry is not None and entry.state in OUT:
        driver.tell(driver.core.give_back_broken, entry)


async def instead_of_dead(
    driver: Driver[T], entry: Entry[T], patience: Patience
) -> Entry[T]:
    """Return another entry in place of one that a probe has found dead.

    Nobody may probe it again: the probe has read what gave it away.
    """
    retire_log.info("%s: found a connection closed by the server", driver.name)
    _sweep(driver, driver.tell(driver.core.lost, entry))
    return await _another(driver, patience)


async def _another(driver: Driver[T], patience: Patience) -> Entry[T]:
    entry = driver.core.borrow(driver.clock(), patience.owner)
    return entry or await driver.wait(patience, again=True)


async def _passes_check(
    driver: Driver[T], now: float, entry: Entry[T], patience: Patience
) -> bool:
    # Not all the borrower's time for one that says nothing: there may be others.
    resource, deadline = entry.resource, min(patience.until, now + ROUND_TRIP)
    if patience.until <= patience.since:
        deadline = now + CHECK_AT_ONCE
    try:
        await driver.bounded(driver.adapter.check(resource), entry, deadline)
    except Exception as error:
        retire_log.info("%s: check failed: %s", driver.name, error)
        return False
    driver.core.proven(driver.clock(), entry)
    return True


def _sweep(driver: Driver[T], suspects: Iterable[Entry[T]]) -> None:
    """Probe suspected entries, without a round trip."""
    for entry in suspects:
        alive = driver.is_alive(entry.resource)
        driver.tell(driver.core.checked, entry, alive, proven=False)


async def check_idle(driver: Driver[T]) -> None:
    """Check every idle entry now; the dead are replaced."""
    suspects = driver.tell(driver.core.suspect)
    try:
        while suspects:
            await _check(driver, suspects.pop())
    finally:  # interrupted: the others go back as they came
        for entry in suspects:
            driver.tell(driver.core.checked, entry, alive=True, proven=False)


async def perform(driver: Driver[T], command: Command[T]) -> None:
    """Do what the core wants done, and tell it how it went."""
    if isinstance(command, Connect):
        await _connect(driver, command.entry)
    elif isinstance(command, Close):
        await _close(driver, command.entry)
    elif isinstance(command, Reset):
        await _reset(driver, command.entry)
    elif isinstance(command, Check):
        await _check(driver, command.entry)
    elif isinstance(command, Abort):
        if (resource := command.entry.reach()) is not None:
            await _cancel(driver, resource)
    elif isinstance(command, Sweep):
        _sweep(driver, driver.tell(driver.core.suspect))
    else:
        try:
            await driver.sound()
        except Exception:
            connect_log.exception("%s: error in reconnect_failed", driver.name)


async def _connect(driver: Driver[T], entry: Entry[T]) -> None:
    core = driver.core
    started = driver.clock()
    failing_since = core.failing_since
    try:
        # The entry's from the first moment on. Who is interrupted lets go of both, and
        # tells nobody: the place is free when they are no more.
        entry.resource, entry.connected = await driver.adapter.connect(), True
        if driver.configure is not None:
            deadline = driver.clock() + CONFIGURE
            await driver.bounded(driver.configure(entry.resource), entry, deadline)
    except Exception as error:
        _connect_failed(driver, entry, error)
        return
    ended = driver.clock()
    driver.faces.clear()
    driver.introduce(entry, entry.resource)
    took, lasts = ended - started, driver.lasts(entry.resource)
    driver.tell(core.connected, entry, entry.resource, took, lasts)
    if failing_since is not None:
        lasted = ended - failing_since
        connect_log.info("%s: connected again after %.2f s", driver.name, lasted)
    else:
        connect_log.info("%s: connected in %.4f s", driver.name, took)


def _connect_failed(driver: Driver[T], entry: Entry[T], error: Exception) -> None:
    # Not in `_connect`: by a name for the cause there, the error and the frame would
    # keep each other alive until the collector runs, and a half-open session with them.
    cause: BaseException = error
    if isinstance(error, (PermanentError, *PROGRAMMING_ERRORS)):
        kind = ErrorClass.FAIL_FAST
        if isinstance(error, PermanentError) and error.__cause__ is not None:
            cause = error.__cause__
    else:
        kind = driver.classify(error)
    driver.tell(driver.core.connect_failed, entry, cause, kind)
    # One line for an outage, and one for each new face of it, to a limit.
    known, text = driver.faces, str(cause)
    news = text not in known and len(known) < FACES
    if news:  # before it is told: others fail at the same time
        known.add(text)
    level = logging.WARNING if news else logging.DEBUG
    connect_log.log(level, "%s: cannot connect: %s", driver.name, cause)


async def _check(driver: Driver[T], entry: Entry[T]) -> None:
    alive = False
    deadline = driver.clock() + ROUND_TRIP
    try:
        if driver.is_alive(entry.resource):
            work = driver.adapter.check(entry.resource)
            await driver.bounded(work, entry, deadline)
            alive = True
    except Exception as error:
        retire_log.info("%s: check failed: %s", driver.name, error)
    finally:
        driver.tell(driver.core.checked, entry, alive, proven=True)


async def _reset(driver: Driver[T], entry: Entry[T]) -> None:
    clean = False
    resource = entry.resource
    deadline = driver.clock() + ROUND_TRIP
    try:
        work = driver.adapter.reset(resource)
        clean = await driver.bounded(work, entry, deadline)
    except Exception as error:
        retire_log.warning("%s: reset failed: %s", driver.name, error)
    finally:
        driver.tell(driver.core.was_reset, entry, clean)


async def _close(driver: Driver[T], entry: Entry[T]) -> None:
    reason = entry.reason.value if entry.reason else "not needed"
    retire_log.info("%s: closing a connection: %s", driver.name, reason)
    try:
        await _cancel(driver, entry.resource)
    finally:
        try:
            await driver.adapter.close(entry.resource)
        except Exception as error:
            retire_log.info("%s: error while closing: %s", driver.name, error)
        # Not by who is interrupted in that: as in `_connect`.
        driver.tell(driver.core.was_closed, entry)


async def _cancel(driver: Driver[T], resource: T) -> None:
    if driver.cancel is None:
        return
    try:
        await driver.cancel(resource)
    except Exception as error:
        retire_log.info("%s: cannot cancel: %s", driver.name, error)
