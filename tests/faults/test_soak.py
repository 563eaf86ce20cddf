"""A few seconds of what `make soak` does for minutes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from soak.sampler import Sampler

from support.parity import eventually, run_blocking

TESTS = Path(__file__).parents[1]


def soak(*options):
    return subprocess.run(
        [sys.executable, "-m", "soak", *options],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_nothing_is_violated_in_a_few_seconds_of_everything():
    run = soak("--minutes", "0.15")

    assert run.returncode == 0, run.stdout + run.stderr
    assert "nothing was violated" in run.stdout


def test_a_soak_says_its_seed_and_takes_one():
    run = soak("--minutes", "0.01", "--seed", "42", "--without", "fork")

    assert run.stdout.startswith("seed 42, ")


# --- whether the sampler would notice -------------------------------------------------


@pytest.fixture
def violations(server):
    """What a sampler reports that lets each application have one session."""
    found = []
    sampler = Sampler(server, 1, lambda what, evidence: found.append(what))
    yield SimpleNamespace(found=found, sampler=sampler)
    sampler.stop()


@contextmanager
def two_sessions(server, name):
    conninfo = server.conninfo_for(application_name=name)
    with psycopg.connect(conninfo) as one, psycopg.connect(conninfo) as another:
        yield one, another


def samples(violations, number):
    goal = violations.sampler.samples + number
    run_blocking(eventually(lambda: violations.sampler.samples >= goal))


def test_the_sampler_notices_one_session_too_many(server, violations):
    with two_sessions(server, "soak-many"):
        run_blocking(eventually(lambda: violations.found))

    assert violations.found[0] == "2 sessions of soak-many, not 1"


def test_the_sampler_does_not_count_who_was_told_to_end(server, violations):
    conninfo = server.conninfo_for(application_name="soak-told")
    with psycopg.connect(conninfo) as one:
        violations.sampler.told.add(one.info.backend_pid)
        with psycopg.connect(conninfo):
            samples(violations, 5)

    assert violations.found == []
    assert violations.sampler.peaks["soak-told"] == 1


def test_the_sampler_does_not_count_whose_client_has_hung_up(server, violations):
    conninfo = server.conninfo_for(application_name="soak-gone")
    with (
        psycopg.connect(conninfo) as one,
        ended_late(one),
        psycopg.connect(conninfo),
    ):
        samples(violations, 5)

    assert violations.found == []


@contextmanager
def ended_late(conn):
    """Hang up; the session lingers in the block, for its process is stopped."""
    process = conn.info.backend_pid
    os.kill(process, signal.SIGSTOP)
    try:
        with socket.socket(fileno=os.dup(conn.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)
        yield
    finally:
        os.kill(process, signal.SIGCONT)
