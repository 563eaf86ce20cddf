"""How long to wait before the next connect while connecting fails. Pure."""

from __future__ import annotations

# The first retries come quickly: a server that restarts refuses for less than a second.
FLOOR = 0.010
# From then on the delay is a share of the outage's age. That is exponential backoff by
# another name (each try makes the age, and so the delay, 1/20 longer), and it states
# what the user cares for: recovery is late by at most a twentieth of the outage.
SHARE = 1 / 20
# Late by at most this while somebody waits. An earlier prototype capped at 30 s; a
# simulation showed it dead for 25 s after an outage of 30 s.
CAP_WAITED = 1.0
# Nobody waits: only min_size wants filling, and a newcomer will not wait for this.
CAP_UNWATCHED = 30.0
# Somebody who arrives asks at once, but not more often than this: 20 attempts a second
# are no stampede, whatever the number of callers.
EAGER = 0.050


def retry_delay(age: float, waited: bool, jitter: float) -> float:
    """Seconds until the next attempt to connect.

    Args:
        age: how long connecting has failed, in seconds.
        waited: whether somebody waits for the outcome.
        jitter: a random number from 0 to 1; it takes off up to a fifth, so that many
            processes do not come back in step.
    """
    cap = CAP_WAITED if waited else CAP_UNWATCHED
    return min(max(FLOOR, age * SHARE), cap) * (1.0 - 0.2 * jitter)
