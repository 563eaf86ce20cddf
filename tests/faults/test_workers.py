"""Servers and workers that run many processes, threads, greenlets or tasks.

Nothing is configured for any of them: a pool is made where the application is. When
they end, or reload, no session is left.
"""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import pytest
from procrastinate import App, SyncPsycopgConnector

from edgepool import ConnectionPool
from edgepool.testing._address import release_port, reserve_port
from support.parity import eventually, run_blocking
from support.pg import Sessions, application_name
from support.programs import IN_TIME, run_program


def until(condition):
    """Wait until something holds, and give it."""
    return run_blocking(eventually(condition, within=IN_TIME))


def echoed(answers):
    """Tell which numbers came back, which workers and which sessions were at work."""
    numbers, workers, backends = (
        [answer[key] for answer in answers] for key in ("number", "worker", "backend")
    )
    return numbers, set(workers), set(backends)


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def port():
    reserved = reserve_port()
    yield reserved
    release_port(reserved)


class Site:
    """What a server serves, as its clients see it."""

    def __init__(self, port):
        self._port = port

    def answer(self, number):
        url = f"http://127.0.0.1:{self._port}/{number}"
        with urllib.request.urlopen(url, timeout=IN_TIME) as response:
            return json.load(response)

    def answers(self, numbers):
        """Have eight clients ask."""
        with ThreadPoolExecutor(8) as clients:
            return list(clients.map(self.answer, numbers))

    def first_answer(self):
        """Wait until the server runs."""
        return until(partial(self._answer_if_any, 0))

    def _answer_if_any(self, number):
        try:
            return self.answer(number)
        except urllib.error.HTTPError:
            raise
        except OSError:
            return None

    def answers_of_workers(self, count, old=frozenset()):
        """Ask until so many workers have answered, none of whom is old."""
        seen, number = [], 0
        while len({answer["worker"] for answer in seen} - old) < count:
            seen += self.answers(range(number, number + 100))
            number += 100

        assert list(range(number)) == echoed(seen)[0]

        return seen


@pytest.fixture
def site(port):
    return Site(port)


# --- multiprocessing ------------------------------------------------------------------


def test_the_workers_of_multiprocessing_have_sessions_of_their_own(conninfo):
    said = json.loads(run_program("many_processes.py", conninfo))
    numbers, workers, backends = echoed(said["theirs"])
    own, _, ours = echoed(said["own"])

    assert list(range(200)) == numbers
    assert list(range(1000, 1100)) == own
    assert len(workers) > 1
    assert not backends & {*ours, *said["preloaded"]}
    assert said["after"] in {*ours, *said["preloaded"]}


# --- gunicorn -------------------------------------------------------------------------


@pytest.fixture
def gunicorn(start, port):
    """Start a gunicorn with two workers: `gunicorn(conninfo, kind, *options, ...)`."""

    def gunicorn(conninfo, kind, *options, **variables):
        return start(
            *("-m", "gunicorn", "--workers=2", "--threads=4", "--worker-class", kind),
            *("--bind", f"127.0.0.1:{port}", *options, "web:app"),
            DATABASE_URL=conninfo,
            **variables,
        )

    return gunicorn


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_the_workers_of_a_preloading_gunicorn_have_sessions_of_their_own(
    kind, way, gunicorn, site
):
    running = gunicorn(way.conninfo, kind, "--preload", BEFORE_THE_FORK="yes")
    first = site.first_answer()
    _, workers, backends = echoed(site.answers_of_workers(2))

    assert not backends & set(first["preloaded"])

    # A worker that dies takes no session of the master's with it.
    os.kill(min(workers), signal.SIGKILL)
    until(lambda: not exists(min(workers)))

    assert list(range(100)) == echoed(site.answers(range(100)))[0]
    with psycopg.connect(way.server.conninfo, autocommit=True) as admin:
        sessions = Sessions(admin, way.name)

        assert set(first["preloaded"]) <= set(sessions.pids)

        running.terminate()
        running.wait(IN_TIME)
        until(lambda: sessions.count == 0)


@pytest.mark.parametrize("loaded", ["before the fork", "in the worker"])
def test_the_greenlets_of_gunicorn_share_the_pool_of_their_worker(
    loaded, conninfo, gunicorn, site, sessions, request
):
    before = loaded == "before the fork"
    config = request.path.parent / "programs" / "greenlets.py"
    options = ("--preload", "--config", config) if before else ()
    variables = {"BEFORE_THE_FORK": "yes"} if before else {}
    running = gunicorn(conninfo, "gevent", *options, **variables)
    preloaded = set(site.first_answer()["preloaded"])
    _, _, backends = echoed(site.answers_of_workers(2))

    assert (2 if before else 0) == len(preloaded)
    assert not backends & preloaded
    assert 2 < len(backends) <= 8

    running.terminate()
    running.wait(IN_TIME)
    until(lambda: sessions.count == 0)


def test_a_reload_of_gunicorn_leaves_no_session_behind(
    conninfo, gunicorn, site, sessions
):
    running = gunicorn(conninfo, "gthread")
    site.first_answer()
    _, old, backends = echoed(site.answers_of_workers(2))
    running.send_signal(signal.SIGHUP)
    until(lambda: not any(map(exists, old)))
    theirs = echoed(site.answers_of_workers(2, old))[2]

    assert not backends & theirs
    until(lambda: not backends & set(sessions.pids))
    assert sessions.count <= 8

    running.terminate()
    running.wait(IN_TIME)
    until(lambda: sessions.count == 0)


# --- servers of ASGI ------------------------------------------------------------------

ASGI = {
    "uvicorn": ("-m", "uvicorn", "asgi:app", "--port={port}"),
    "uvicorn, 2 workers": ("-m", "uvicorn", "asgi:app", "--port={port}", "--workers=2"),
    "hypercorn, 2 workers": (
        *("-m", "hypercorn", "asgi:app", "--bind=127.0.0.1:{port}", "--workers=2"),
    ),
}


@pytest.mark.parametrize("name", ASGI)
def test_each_worker_of_an_asgi_server_has_a_pool_in_its_loop(
    name, conninfo, start, port, site, sessions
):
    command = [word.format(port=port) for word in ASGI[name]]
    running = start(*command, DATABASE_URL=conninfo)
    site.first_answer()
    workers = 2 if "2 workers" in name else 1
    _, _, backends = echoed(site.answers_of_workers(workers))

    assert 2 * workers <= len(backends) <= 4 * workers

    running.terminate()
    running.wait(IN_TIME)
    until(lambda: sessions.count == 0)


# --- queues ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["tls"], indirect=True)  # Celery takes its time
def test_the_workers_of_celery_have_sessions_of_their_own(way, start, tmp_path):
    variables = {"DATABASE_URL": way.conninfo, "BROKER": str(tmp_path / "broker")}
    running = start(
        *("-m", "celery", "--app=jobs", "worker", "--pool=prefork", "--concurrency=2"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        **variables,
    )
    said = json.loads(run_program("jobs.py", **variables))
    numbers, workers, backends = echoed(said)

    assert list(range(100)) == numbers
    assert 2 == len(workers)
    assert not backends & set(said[0]["preloaded"])

    running.terminate()
    running.wait(IN_TIME)
    with psycopg.connect(way.server.conninfo, autocommit=True) as admin:
        sessions = Sessions(admin, way.name)
        until(lambda: sessions.count == 0)


@pytest.fixture
def database(server, admin, conninfo):
    """A database of the test's own, for tables whose names are given."""
    name = application_name(conninfo)
    admin.execute(f'create database "{name}"')
    yield server.conninfo_for(dbname=name, application_name=name)
    admin.execute(f'drop database "{name}" with (force)')


def test_procrastinate_works_and_listens_with_a_pool_that_it_is_handed(
    database, start, sessions
):
    with ConnectionPool(database, min_size=1) as pool:
        app = App(connector=SyncPsycopgConnector())
        app.open(pool)
        app.schema_manager.apply_schema()
        with pool.connection() as conn:
            conn.execute("create table done (number int, worker int, backend int)")

        running = start("-m", "chores", DATABASE_URL=database)
        until(lambda: any(query.startswith("LISTEN") for query in sessions.queries))
        for number in range(50):
            app.configure_task("echo").defer(number=number)

        def done():
            with pool.connection() as conn:
                return conn.execute(
                    "select number, worker, backend from done"
                ).fetchall()

        until(lambda: len(done()) == 50)
        numbers, workers, backends = zip(*done(), strict=True)

        assert list(range(50)) == sorted(numbers)
        assert {running.pid} == set(workers)
        assert len(set(backends)) <= 4

    running.terminate()
    running.wait(IN_TIME)
    until(lambda: sessions.count == 0)
