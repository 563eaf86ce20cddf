"""The life of an entry as data: each legal step, and what makes it.

For tests and for the picture in the docs; the core does not interpret it. The state
machine in the tests holds that every step taken is in here, and that each is reached.
"""

from __future__ import annotations

from .entry import State

TRANSITIONS: dict[tuple[State, State], str] = {
    (State.CONNECTING, State.IDLE): "connected, nobody waits",
    (State.CONNECTING, State.IN_USE): "connected, handed to a waiter",
    (State.CONNECTING, State.GONE): "connect failed",
    (State.CONNECTING, State.CLOSING): "not configured, or not wanted any more",
    (State.CONNECTING, State.ABORTED): "close() ran out of time",
    (State.IDLE, State.IN_USE): "borrowed",
    (State.IDLE, State.CHECKING): "not proven alive for a while, or suspected",
    (State.IDLE, State.CLOSING): "too old, unused, surplus, drained or pool closed",
    (State.IN_USE, State.IDLE): "returned clean",
    (State.IN_USE, State.RESETTING): "returned dirty",
    (State.IN_USE, State.CLOSING): "returned broken or too old, or found dead",
    (State.IN_USE, State.ABORTED): "close() ran out of time",
    (State.CHECKING, State.IDLE): "alive",
    (State.CHECKING, State.IN_USE): "alive, handed to a waiter",
    (State.CHECKING, State.CLOSING): "dead, or not wanted any more",
    (State.CHECKING, State.ABORTED): "close() ran out of time",
    (State.RESETTING, State.IDLE): "clean again",
    (State.RESETTING, State.IN_USE): "clean again, handed to a waiter",
    (State.RESETTING, State.CLOSING): "could not be cleaned, or not wanted any more",
    (State.RESETTING, State.ABORTED): "close() ran out of time",
    (State.CLOSING, State.GONE): "closed",
    (State.ABORTED, State.GONE): "its owner let go",
}
