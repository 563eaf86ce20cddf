"""One pool for the process, one connection for each piece of work: copy these lines.

Run it with `DATABASE_URL=postgresql://... python examples/quickstart.py`.
"""

import os

from edgepool import ConnectionPool

pool = ConnectionPool(os.environ["DATABASE_URL"], max_size=10)


def largest_tables(count: int) -> list[str]:
    with pool.connection() as conn:  # commits at the end, rolls back on an error
        query = "SELECT relname FROM pg_class ORDER BY relpages DESC LIMIT %s"
        return [name for (name,) in conn.execute(query, [count])]


if __name__ == "__main__":
    print(largest_tables(3))
