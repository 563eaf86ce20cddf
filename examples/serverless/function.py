"""The function: what is deployed. A platform runs it in as many instances as it likes.

Copy these lines. `DATABASE_URL` leads through the pooler.
"""

from __future__ import annotations

from typing import Any

from edgepool import NullConnectionPool

# Made once for each instance, at its cold start; connects to nothing yet. It keeps no
# connection between two requests: that is the pooler's business. `max_size` is how many
# connections one instance has at most, if it serves several requests at a time.
pool = NullConnectionPool.from_env(max_size=2, timeout=10)


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Count a visit, and tell how many there were."""
    with pool.connection() as conn:
        row = conn.execute(
            "INSERT INTO visits (page) VALUES (%s)"
            " ON CONFLICT (page) DO UPDATE SET visits = visits.visits + 1"
            " RETURNING visits",
            [event["page"]],
        ).fetchone()
        conn.execute("SELECT pg_sleep(0.05)")  # a function that has more to do
    return {"page": event["page"], "visits": row[0] if row else None}
