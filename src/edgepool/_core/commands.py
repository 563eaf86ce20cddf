"""What the core wants done: one small object for each piece of I/O.

The driver hands each command to `edgepool._flows.perform`, which does it and tells the
core how it went. A command that is outstanding owns its entry.
"""

from __future__ import annotations

from typing import Generic, TypeAlias, TypeVar

from .entry import Entry

T = TypeVar("T")


class _OfEntry(Generic[T]):
    __slots__ = ("entry",)

    def __init__(self, entry: Entry[T]) -> None:
        self.entry = entry

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.entry!r})"


class Connect(_OfEntry[T]):
    """Open a resource for this entry; answer `connected` or `connect_failed`."""

    __slots__ = ()


class Check(_OfEntry[T]):
    """Find out whether this idle resource is alive; answer `checked`."""

    __slots__ = ()


class Reset(_OfEntry[T]):
    """Make this returned resource clean again; answer `was_reset`."""

    __slots__ = ()


class Close(_OfEntry[T]):
    """Close this resource; answer `was_closed`."""

    __slots__ = ()


class Abort(_OfEntry[T]):
    """Cut this resource off, though somebody still uses it; no answer."""

    __slots__ = ()


class Alarm:
    """Tell the user that connecting has failed for `reconnect_timeout`; no answer."""

    __slots__ = ()


class Sweep:
    """Probe all idle resources; answer `suspect`, then `checked` for each."""

    __slots__ = ()


# A string: making the union of generics would cost a tenth of the package's import.
Command: TypeAlias = (
    "Connect[T] | Check[T] | Reset[T] | Close[T] | Abort[T] | Alarm | Sweep"
)
