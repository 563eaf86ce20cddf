"""Django in workers that fork, whose parent has asked the database before.

The parent's thread keeps that connection: what the workers find is a copy of it.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgepool.testing._address import HOST
from support.django_site import TABLE, Site


@pytest.fixture
def site(tmp_path, conninfo, admin):
    admin.execute(TABLE)
    return Site(tmp_path, conninfo)


def has_forked_well(answers, sessions):
    """Tell whether two workers have used sessions of their own, and few of them."""
    workers, backends, preloaded = (
        {answer[key] for answer in answers}
        for key in ("worker", "backend", "preloaded")
    )
    # Each process has three at most; the parent has the one.
    return (
        len(workers) == 2
        and not backends & preloaded
        and preloaded <= set(sessions.pids)
        and sessions.count <= 2 * 3 + 1
    )


def test_a_preloading_gunicorn_serves_django(site, sessions):
    with site.served(
        *("-m", "gunicorn", "--preload", "--workers=2", "--worker-class=gthread"),
        *("--threads=4", f"--bind={HOST}:{{port}}", "notes.wsgi"),
    ) as ask:
        answers = []
        while len({answer["worker"] for answer in answers}) < 2:
            with ThreadPoolExecutor(8) as clients:
                answers += clients.map(ask, ["preloaded"] * 100)

        assert has_forked_well(answers, sessions)


def test_celerys_workers_keep_djangos_connections_from_task_to_task(site, sessions):
    # Celery closes, around each task, the pool that it finds here. The default is not.
    del site.database["OPTIONS"]["pool"]
    with site.running(
        *("-m", "celery", "--app=notes.jobs", "worker", "--pool=prefork"),
        *("--concurrency=2", "--without-gossip", "--without-mingle"),
        "--without-heartbeat",
    ):
        answers = json.loads(site.run("-m", "notes.jobs").splitlines()[0])

        assert has_forked_well(answers, sessions)
        assert 2 == len({answer["backend"] for answer in answers})
