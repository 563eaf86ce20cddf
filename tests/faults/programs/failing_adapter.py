"""A pool whose adapter cannot disown what it has; another pool, and its others, can.

failing_adapter.py CONNINFO
"""

from __future__ import annotations

import os
import sys

from edgepool import ConnectionPool, Pool
from support.forks import fork


class Adapter:
    """Opens numbers, and does not let go of the first that it is asked to."""

    def __init__(self):
        self.numbers = iter(range(100))
        self.disowned = []

    def connect(self):
        return next(self.numbers)

    def is_clean(self, number):
        return True

    def check(self, number):
        pass

    def reset(self, number):
        return True

    def close(self, number):
        pass

    def disown(self, number):
        self.disowned.append(number)
        if len(self.disowned) == 1:
            raise ValueError("it sticks")


if __name__ == "__main__":
    adapter = Adapter()
    with (
        ConnectionPool(sys.argv[1], min_size=1) as before,
        Pool(adapter, min_size=3) as pool,
        ConnectionPool(sys.argv[1], min_size=1) as after,
    ):
        for each in (before, pool, after):
            each.wait()
        with before.connection() as conn, pool.borrow():
            parents = conn.info.backend_pid
            if (child := fork()) == 0:
                try:
                    for each in (before, after):
                        with each.connection() as conn:
                            assert conn.info.backend_pid != parents
                    with pool.borrow() as number:
                        assert number not in adapter.disowned
                    print(len(adapter.disowned), "disowned, the others served")
                    sys.stdout.flush()
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
