"""A cancellation at a chosen suspension of a coroutine; at each of them in turn."""

from __future__ import annotations

import asyncio


class CancelledAt:
    """Drives a coroutine by hand, and cancels it where it suspends; to be awaited.

    Args:
        coroutine: what to drive.
        suspension: at which of its suspensions; the first is 1.
        late: True: when what it waits for is there, in the same moment.

    Attributes:
        suspensions: how many there were.
        outcome: `"returned"`, or what it raised.
    """

    def __init__(self, coroutine, suspension, late):
        self._coroutine = coroutine
        self._suspension = suspension
        self._late = late
        self.suspensions = 0
        self.outcome = None

    @property
    def struck(self):
        return self.suspensions >= self._suspension

    def __await__(self):
        step, argument = self._coroutine.send, None
        try:
            while True:
                waits_for = step(argument)
                step, argument = self._coroutine.send, None
                self.suspensions += 1
                if self.suspensions != self._suspension:
                    yield waits_for
                    continue
                if self._late:
                    yield waits_for
                elif waits_for is not None:
                    # As a task does it: what it waits for is cancelled with it.
                    waits_for._asyncio_future_blocking = False
                    waits_for.cancel()
                step, argument = self._coroutine.throw, asyncio.CancelledError()
        except StopIteration:
            self.outcome = "returned"
        except (asyncio.CancelledError, Exception) as error:
            self.outcome = error


async def at_every_suspension(scenario):
    """Run a scenario with a cancellation at each of its suspensions, one by one.

    Args:
        scenario: a coroutine function that is given `drive`. It awaits that with a
            coroutine, once, and looks afterwards at what has become of the pool.

    Returns the number of suspensions.
    """
    most = 0
    for late in (False, True):
        suspension = 1
        while True:
            driven = None

            async def drive(coroutine, suspension=suspension, late=late):
                nonlocal driven
                driven = CancelledAt(coroutine, suspension, late)
                await driven

            try:
                await scenario(drive)
                if driven.struck:
                    assert isinstance(driven.outcome, asyncio.CancelledError), (
                        f"the cancellation was swallowed: {driven.outcome!r}"
                    )
                elif isinstance(driven.outcome, BaseException):
                    raise driven.outcome
            except BaseException as error:
                if hasattr(error, "add_note"):
                    error.add_note(f"cancelled at suspension {suspension}, {late=}")
                raise
            if not driven.struck:
                break
            suspension += 1
        most = max(most, suspension - 1)
    return most
