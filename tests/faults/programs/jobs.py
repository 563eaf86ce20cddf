"""A Celery application whose pool is opened and used before the workers are forked.

DATABASE_URL says where to, BROKER which folder the messages go through. Run as a
program it sends jobs, and prints what came back.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from celery import Celery

from edgepool import ConnectionPool

pool = ConnectionPool(os.environ["DATABASE_URL"], min_size=2, max_size=4, open=True)
pool.wait()

with pool.connection() as first, pool.connection() as second:
    PRELOADED = [first.info.backend_pid, second.info.backend_pid]

folder = Path(os.environ["BROKER"])
for name in ("queue", "control", "results"):
    (folder / name).mkdir(parents=True, exist_ok=True)

app = Celery(
    "jobs", broker="filesystem://", backend=(folder / "results").absolute().as_uri()
)
app.conf.broker_transport_options = {
    "data_folder_in": str(folder / "queue"),
    "data_folder_out": str(folder / "queue"),
    "control_folder": str(folder / "control"),
}
app.conf.worker_prefetch_multiplier = 1


@app.task
def echo(number):
    with pool.connection() as conn:
        query = "select %s::int, pg_backend_pid() from pg_sleep(0.01)"
        back, backend = conn.execute(query, [number]).fetchone()
    return {
        "number": back,
        "backend": backend,
        "worker": os.getpid(),
        "preloaded": PRELOADED,
    }


if __name__ == "__main__":
    from jobs import echo  # by the name under which the worker knows it

    sent = [echo.delay(number) for number in range(100)]
    print(json.dumps([job.get(timeout=60.0, interval=0.05) for job in sent]))
    pool.close()
