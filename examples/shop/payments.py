"""The payment provider: somebody else's service, over the network, and slow.

Nobody should hold a connection to the database while he waits for it.
"""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal

TAKES = 0.03  # seconds


def pay(order: int, total: Decimal) -> str:
    """Collect the money; return the receipt."""
    time.sleep(TAKES)
    return f"receipt-{order}-{total}"


async def pay_async(order: int, total: Decimal) -> str:
    """Collect the money; return the receipt."""
    await asyncio.sleep(TAKES)
    return f"receipt-{order}-{total}"
