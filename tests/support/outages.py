"""The ways in which a server can be out, each with a beginning and an end.

Each is made for one test, and gives a pool's arguments; it counts the pool's attempts
to connect. `begin` and `end` block until it is so.
"""

from __future__ import annotations

import threading
import time

import psycopg
from psycopg.conninfo import make_conninfo

from support.pg_proxy import Proxy

# libpq takes no less.
CONNECT_TIMEOUT = 2

NAME = "pool"
"""The pool's application_name."""


class Outage:
    """A server, what is between it and the pool, and what can happen to them.

    Attributes:
        server: the server, that a superuser can always ask directly.
        told: whether those who ask are told at once that there is no connection.
        hangs: for how many seconds after the end an attempt from before may hang.
    """

    told = False
    hangs = 0.0

    def __init__(self, server, conninfo):
        self.server = server
        self.conninfo = make_conninfo(conninfo, application_name=NAME)
        self.asked = []

    @property
    def moments(self):
        """When the pool tried to connect: by what the outside saw, if it sees it."""
        return self.asked

    def arguments(self, colour):
        """Give the pool's arguments."""
        return {"conninfo": self._give_conninfo}

    def _give_conninfo(self):
        self.asked.append(time.monotonic())
        return self.conninfo

    def begin(self):
        raise NotImplementedError

    def end(self):
        raise NotImplementedError

    def close(self):
        """Leave nothing behind."""


# --- the server itself ----------------------------------------------------------------


class Stopped(Outage):
    """Nobody listens: connects are refused."""

    def begin(self):
        self.server.stop()

    def end(self):
        self.server.start()


class Killed(Stopped):
    """The same without a farewell, and it has to recover when it is started."""

    def begin(self):
        self.server.kill()


class StartingUp(Outage):
    """57P03: it is there, but takes nobody yet."""

    def __init__(self, server, conninfo):
        super().__init__(server, conninfo)
        self._go = server.directory / "go"
        # It looks for an archive before it does anything else, and waits for that.
        server.settings["restore_command"] = (
            f"while ! test -e {self._go}; do sleep 0.02; done; false"
        )

    def begin(self):
        self.server.stop()
        self._go.unlink(missing_ok=True)
        signal = self.server.directory / "data" / "recovery.signal"
        signal.touch()
        signal.chmod(0o666)
        self._starting = threading.Thread(target=self.server.start, args=(120.0,))
        self._starting.start()

    def end(self):
        self._go.touch()
        self._starting.join()

    def close(self):
        self._go.touch()


# --- the network ----------------------------------------------------------------------


class ByProxy(Outage):
    """Something that a proxy before the server does, or sees."""

    def __init__(self, server, conninfo):
        super().__init__(server, conninfo)
        self.proxy = Proxy(self.conninfo)
        self.conninfo = self.proxy.conninfo(connect_timeout=CONNECT_TIMEOUT)

    @property
    def moments(self):
        return self.proxy.moments

    def close(self):
        self.proxy.close()


class Reset(ByProxy):
    """RST for what there is, and for each connect."""

    def begin(self):
        self.proxy.reset()

    def end(self):
        self.proxy.restore()


class Hole(ByProxy):
    """Nothing is delivered; at the end all of it is, late."""

    @property
    def moments(self):
        return self.asked  # the proxy sees requests to cancel a query as well

    def begin(self):
        self.proxy.black_hole()

    def end(self):
        self.proxy.restore()


class CutHole(Hole):
    """Nothing is delivered; at the end the connections are cut."""

    def end(self):
        self.proxy.cut()
        self.proxy.restore()


class LostHole(Hole):
    """All is cut, and what tries again is swallowed for good: it hangs on and on.

    With a place of the pool, as the server may yet let it in; only its timeout ends it.
    """

    hangs = CONNECT_TIMEOUT

    def begin(self):
        self.proxy.black_hole()
        self.proxy.cut()

    def end(self):
        self.proxy.forget()


# --- what the server says, and what the user's callables do ---------------------------


class OfRole(ByProxy):
    """Something about the role that the pool connects as."""

    def __init__(self, server, role):
        super().__init__(server, role.conninfo(password="right"))
        self.role = role

    def begin(self):
        self.refuse()
        with psycopg.connect(self.server.conninfo) as conn:
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = %s",
                [NAME],
            )

    def refuse(self):
        raise NotImplementedError


class WrongPassword(OfRole):
    """28P01."""

    told = True

    def refuse(self):
        self.role.set_password("other")

    def end(self):
        self.role.set_password("right")


class Full(OfRole):
    """53300: the role has as many sessions as it may have."""

    def refuse(self):
        self.role.set_limit(0)

    def end(self):
        self.role.set_limit(-1)


class Raising(OfRole):
    """A callable of the user raises."""

    error = None

    @property
    def moments(self):
        return self.asked

    def refuse(self):
        self.raising = True

    def end(self):
        self.raising = False

    raising = False

    def _perhaps_raise(self):
        if self.raising:
            raise self.error


class RaisingConfigure(Raising):
    """`configure` raises, when the server has let us in already."""

    error = OSError("the service of configure is away")

    @property
    def moments(self):
        return self.proxy.moments

    def arguments(self, colour):
        async def configure(conn):
            self._perhaps_raise()

        return {
            **super().arguments(colour),
            "configure": colour.callback(configure),
        }


class RaisingConninfo(Raising):
    """There is no connection string to be had."""

    error = OSError("the token service is away")

    def _give_conninfo(self):
        conninfo = super()._give_conninfo()
        self._perhaps_raise()
        return conninfo


class RaisingKwargs(Raising):
    """There are no credentials to be had, for a reason of their own kind."""

    error = RuntimeError("the token is garbled")

    def arguments(self, colour):
        async def kwargs():
            self._perhaps_raise()
            return {"password": "right"}

        return {**super().arguments(colour), "kwargs": colour.callback(kwargs)}


class BuggyConfigure(RaisingConfigure):
    """`configure` has a bug, for a while: it is of no use to wait."""

    told = True
    error = KeyError("tenant")


OF_A_SERVER = (Stopped, Killed, StartingUp)
OF_THE_NETWORK = (Reset, Hole, CutHole, LostHole)
OF_A_ROLE = (
    WrongPassword,
    Full,
    RaisingConfigure,
    RaisingConninfo,
    RaisingKwargs,
    BuggyConfigure,
)
