"""The migration: what a deployment runs once, before the function.

`DIRECT_URL` leads past the pooler: the lock belongs to a session.
"""

from __future__ import annotations

from edgepool import NullConnectionPool

LOCK = 20_260_101  # any number, the same in all deployments

MIGRATIONS = {
    "visits": "CREATE TABLE visits (page text PRIMARY KEY, visits int DEFAULT 1)",
}


def migrate(pool: NullConnectionPool) -> list[str]:
    """Apply what is missing; give the names. Two at the same time do no harm."""
    with pool.direct() as conn:
        conn.autocommit = True
        conn.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        conn.execute("CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY)")
        done = {name for (name,) in conn.execute("SELECT name FROM migrations")}
        missing = [name for name in MIGRATIONS if name not in done]
        for name in missing:
            with conn.transaction():
                conn.execute(MIGRATIONS[name])
                conn.execute("INSERT INTO migrations VALUES (%s)", [name])
    return missing  # the end of the session has released the lock


if __name__ == "__main__":
    print("migrated:", *migrate(NullConnectionPool.from_env(direct="DIRECT_URL")))
