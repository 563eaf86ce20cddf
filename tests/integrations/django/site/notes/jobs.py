"""For Celery, with a query before the fork. As a program: sends jobs, and prints."""

import json
import os
import time
from pathlib import Path

import django
from celery import Celery

django.setup()

from .views import backend  # noqa: E402

PRELOADED = backend()

folder = Path("broker").absolute()
for name in ("queue", "control", "results"):
    (folder / name).mkdir(parents=True, exist_ok=True)

app = Celery("notes", broker="filesystem://", backend=(folder / "results").as_uri())
app.conf.broker_transport_options = {
    "data_folder_in": str(folder / "queue"),
    "data_folder_out": str(folder / "queue"),
    "control_folder": str(folder / "control"),
}
app.conf.worker_prefetch_multiplier = 1


@app.task(name="ask")
def ask():
    """Tell which worker asks which session, after time enough for the other one."""
    time.sleep(0.1)
    return {"worker": os.getpid(), "backend": backend(), "preloaded": PRELOADED}


if __name__ == "__main__":
    sent = [ask.delay() for _ in range(12)]
    print(json.dumps([job.get(timeout=60.0, interval=0.05) for job in sent]))
