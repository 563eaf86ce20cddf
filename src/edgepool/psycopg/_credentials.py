"""Passwords that change: who is asked for them, when, and for how long they are used.

A provider is asked once, however many connects want to know; ahead of the end of what
it gave last, while that is still in use; and again if the server does not admit it.
What it gave is shown to nobody but libpq, and what it raises only by name: its text may
quote what it got from a service.
"""

from __future__ import annotations

import logging
import os
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import isfinite
from time import monotonic
from typing import Any, Final, Generic, TypeAlias, TypeVar

from .._adapter import PermanentError
from .._core import NEVER
from .._errors import CredentialsError
from .._flows import PROGRAMMING_ERRORS

F = TypeVar("F", bound="Flight")

log = logging.getLogger("edgepool.connect")

# A credential is renewed so many seconds before its end, but not before so much of its
# life is over: one that lives for a minute only is not fetched for each connect.
AHEAD: Final = 60.0
SHARE: Final = 0.8

# What a provider may take to answer, in seconds: what a connect may, by default.
FETCH: Final = 10.0

# How long to wait, in seconds, before a provider is asked again that failed though
# nobody needs it yet, or whose latest credential the server did not admit either.
PAUSE: Final = 1.0


@dataclass(frozen=True)
class Credential:
    """What to connect with, as a provider gives it.

    Args:
        password: the password, or a token in its place. Not in the `repr`.
        user: the role; None: as `conninfo` or `kwargs` say.
        expires_in: for how many seconds from now on it opens connections. None: until
            the server does not admit it any more.
        expires_at: the same as a moment, as `time.time()` counts. Not both.

    Raises:
        TypeError: the password is not a string.
        ValueError: both moments are given, or one that is no number, or not positive.
    """

    password: str = field(repr=False)
    user: str | None = None
    expires_in: float | None = None
    expires_at: float | None = None

    __module__ = "edgepool"

    def __post_init__(self) -> None:
        """Validate, without a word of what is secret."""
        password: Any = self.password
        if not isinstance(password, str):
            kind = type(password).__name__
            raise TypeError(f"the password of a Credential must be a str, not {kind}")
        if self.expires_in is not None and self.expires_at is not None:
            raise ValueError("a Credential takes expires_in or expires_at, not both")
        for name in ("expires_in", "expires_at"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value > 0):
                raise ValueError(f"{name} must be greater than 0, not {value!r}")

    def lasts(self) -> float:
        """Tell for how many seconds from now on it can be used, if it is new."""
        if self.expires_at is not None:
            return self.expires_at - time.time()
        return NEVER if self.expires_in is None else self.expires_in


CredentialsProvider: TypeAlias = Callable[[], "Credential | str"]
AsyncCredentialsProvider: TypeAlias = Callable[
    [], "Credential | str | Awaitable[Credential | str]"
]


class Held:
    """A credential that a provider gave, with its moments on the monotonic clock."""

    __slots__ = ("_wall_ahead", "admitted", "credential", "expires_at", "refresh_at")

    def __init__(self, given: object, now: float) -> None:
        if isinstance(given, str):
            given = Credential(given)
        if not isinstance(given, Credential):
            kind = type(given).__name__
            raise TypeError(f"a provider must give a Credential or a str, not {kind}")
        lasts = given.lasts()
        self._wall_ahead = time.time() - now
        self.credential = given
        # Whether the server has let anybody in with it.
        self.admitted = False
        self.expires_at = now + lasts
        self.refresh_at = now + max(lasts - AHEAD, lasts * SHARE)

    def clock(self) -> float:
        """Tell the time: by the wall if the machine was suspended in between."""
        return max(monotonic(), time.time() - self._wall_ahead)

    def arguments(self) -> dict[str, Any]:
        """Give it as arguments of `connect`."""
        user = self.credential.user
        given: dict[str, Any] = {"password": self.credential.password}
        return given if user is None else {**given, "user": user}


class Flight:
    """One question to a provider, for all who want to know."""

    def __init__(self, now: float) -> None:
        self.until = now + FETCH
        self.held: Held | None = None
        self.failure = ""
        self.permanent = False

    def fail(self, error: BaseException) -> None:
        """Take note of an error by its name and its place; keep nothing of it."""
        self.permanent = isinstance(error, (PermanentError, *PROGRAMMING_ERRORS))
        if isinstance(error, PermanentError):
            self.failure = str(error)  # which is addressed to us
            return
        traceback, where = error.__traceback__, ""
        while traceback is not None:
            file = os.path.basename(traceback.tb_frame.f_code.co_filename)
            where = f" at {file}:{traceback.tb_lineno}"
            traceback = traceback.tb_next
        name = type(error).__name__
        self.failure = f"the credentials provider raised {name}{where}"

    def outcome(self) -> Held:
        """Give what came of it.

        Raises:
            CredentialsError: nothing did; a new one each time, for tracebacks grow.
            PermanentError: nothing did, and to ask again cannot help.
        """
        if self.held is not None:
            return self.held
        seconds = f"{FETCH:g} s"
        slow = f"the credentials provider has not answered within {seconds}"
        error = CredentialsError(self.failure or slow)
        if self.permanent:
            raise PermanentError(str(error)) from error
        raise error


class Credentials(Generic[F]):
    """What a provider gave, and when to ask it again: without waiting for anything.

    Args:
        provider: the user's.
        name: gives the pool's name.
    """

    def __init__(self, provider: Callable[[], Any], name: Callable[[], str]) -> None:
        if not callable(provider):
            kind = type(provider).__name__
            raise TypeError(f"credentials must be a function, not {kind}")
        self._provider = provider
        self._name = name
        self._held: Held | None = None
        # One at most, by process: in a forked child nobody is on the way.
        self._flights: dict[int, F] = {}
        self._not_before = self._rejected_at = -NEVER

    def __repr__(self) -> str:
        return "<credentials>"

    def reject(self, held: Held) -> bool:
        """Take note that the server does not admit a credential.

        Returns:
            Whether there may be a better one. Not if this one is what came of asking
            for a better one just before.
        """
        if self._held is not held:
            return True
        now = monotonic()
        if not held.admitted and now < self._rejected_at + PAUSE:
            return False
        self._rejected_at = now
        self._held = None
        return True

    def _at_hand(self) -> Held | None:
        """Give what can be used now; see to it that there will be something later."""
        held = self._held
        if held is None or (now := held.clock()) >= held.expires_at:
            return None
        if now >= held.refresh_at and now >= self._not_before:
            self._take_off()
        return held

    def _take_off(self) -> F:
        """Ask the provider, unless somebody does so already."""
        now, process = monotonic(), os.getpid()
        under_way = self._flights.get(process)
        if under_way is not None and self._is_lost(under_way, now):
            self._flights.pop(process, None)
        flight = self._new_flight(now)
        # One step, so of many who come at once one is the first.
        first = self._flights.setdefault(process, flight)
        if first is flight:
            self._ask(flight)
        return first

    def _is_lost(self, flight: F, now: float) -> bool:
        return now >= flight.until

    def _land(self, flight: F, given: object, error: BaseException | None) -> None:
        """Take in what the provider gave, or raised; tell nobody yet."""
        now = monotonic()
        if error is None:
            try:
                flight.held = self._held = Held(given, now)
            except TypeError as misfit:
                flight.permanent, flight.failure = True, str(misfit)
        else:
            flight.fail(error)
        if flight.held is None:
            self._not_before = now + PAUSE
            if self._held is not None:  # so nobody may be waiting to be told
                log.warning(
                    "%s: cannot renew the credentials: %s", self._name(), flight.failure
                )
        if self._flights.get(os.getpid()) is flight:
            del self._flights[os.getpid()]

    @abstractmethod
    def _new_flight(self, now: float) -> F: ...

    @abstractmethod
    def _ask(self, flight: F) -> None:
        """Ask the provider in the background."""
