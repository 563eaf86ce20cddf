"""What the pool needs to know about a resource: five methods, and three for the keen.

The pool calls each method outside of its lock. `is_clean` and `is_alive` are on the hot
path and must not wait for anything.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Adapter(Protocol[T]):
    """How a `Pool` handles its resources. Any of these may be called in any thread."""

    def connect(self) -> T:
        """Open a resource, ready for its first borrower.

        Raise anything to say that it failed; the pool backs off and tries again. Raise
        `PermanentError` (or a programming error, such as `TypeError`) to say that
        trying again cannot help: those who wait are told at once.
        """
        ...

    def is_clean(self, resource: T, /) -> bool:
        """Tell, without waiting, whether a returned resource can be lent as it is."""
        ...

    def check(self, resource: T, /) -> None:
        """Find out whether an idle resource still works; raise if it does not."""
        ...

    def reset(self, resource: T, /) -> bool:
        """Make a returned resource clean; False (or an exception) to throw it away."""
        ...

    def close(self, resource: T, /) -> None:
        """Close it; it may be broken. Do not wait for the other side."""
        ...


class AsyncAdapter(Protocol[T]):
    """How an `AsyncPool` handles its resources: `Adapter` with coroutines."""

    async def connect(self) -> T:
        """Open a resource; see `Adapter.connect`."""
        ...

    def is_clean(self, resource: T, /) -> bool:
        """Tell whether a returned resource is clean; see `Adapter.is_clean`."""
        ...

    async def check(self, resource: T, /) -> None:
        """Raise if an idle resource does not work; see `Adapter.check`."""
        ...

    async def reset(self, resource: T, /) -> bool:
        """Make a returned resource clean; see `Adapter.reset`."""
        ...

    async def close(self, resource: T, /) -> None:
        """Close it; see `Adapter.close`."""
        ...


class Watchful(Protocol[T_contra]):
    """Three optional methods of either adapter. The pool looks for them by name.

    Together they are what lets a pool promise, for a resource on a network, that
    nothing dead is served, that deadlines hold, and that a forked child leaves its
    parent alone.
    """

    def is_alive(self, resource: T_contra, /) -> bool:
        """Tell, without waiting or a round trip, whether the other side has gone.

        Called at each borrow of a resource that was idle; about 0.3 µs is fine.
        """
        ...

    def abort(self, resource: T_contra, /) -> None:
        """Cut a resource off, though another thread or task may be using it.

        Whoever waits for it must get an error soon. The pool closes it afterwards.
        """
        ...

    def disown(self, resource: T_contra, /) -> None:
        """Make a resource harmless in a forked child: it belongs to the parent process.

        Nothing that is done in the child from then on, not even destroying it, may be
        noticed by the other side. Called in the child before `os.fork` returns there,
        for every resource, also those that are lent: take no lock, wait for nothing.
        No other method of the adapter is called with it afterwards.
        """
        ...


class PermanentError(Exception):
    """Raised by an adapter's `connect`, `from` the real error: retrying cannot help."""
