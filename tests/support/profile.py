"""How thorough the fault suite is: seconds for each change, or hours for a release.

`EDGEPOOL_FAULTS` above 1, which is what `make faults` sets, asks for the full lengths.
"""

from __future__ import annotations

import os

FULL = int(os.environ.get("EDGEPOOL_FAULTS", "1")) > 1

GUARD = 0.0 if FULL else 1.0
"""What is allowed beside each limit, in seconds: other tests may use the machine."""

GUARD_OF_A_RETURN = 0.0 if FULL else 0.4
"""The same for what a return may take: it waits for nobody."""

AT_ONCE = 0.3 if FULL else 1.5
"""Within how many seconds after an outage a newcomer is to be served: one connect."""

SOON = 2.0 if FULL else 5.0
"""Within how many seconds after an outage everybody is to be served."""

GOODPUT = 0.9 if FULL else 0.8
"""Which share of its capacity a pool serves in time in an overload, at least."""

OUTAGES = (2.0, 35.0) if FULL else (0.2, 0.7)
"""How long a server is out, in seconds: briefly, and longer than every timeout."""

EVERY_TIMEOUT = OUTAGES[-1] * 6 / 7
"""What no timeout of a pool exceeds: the default of a borrow, 30 s, beside 35 s."""
