"""How often the fault suite tries: briefly, or as often as one likes."""

from __future__ import annotations

import os

FAULTS = int(os.environ.get("EDGEPOOL_FAULTS", "1"))


def sparsely(step):
    """Give a step for a walk: the default, or a smaller one, down to 1."""
    return max(step // FAULTS, 1)


def rounds(default):
    """Give a number of rounds: the default, times EDGEPOOL_FAULTS."""
    return default * FAULTS
