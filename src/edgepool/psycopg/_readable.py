"""Whether a socket has something to read, as cheaply as the platform can tell."""

from __future__ import annotations

import select
from collections.abc import Callable


def watch(fd: int) -> Callable[[int], object]:
    """Return a function that, called with 0, tells without waiting if `fd` is readable.

    Made once for each connection: making the poll object costs more than asking it.
    """
    if not hasattr(select, "poll"):  # Windows
        return lambda timeout: select.select([fd], [], [], timeout)[0]
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return poll.poll
