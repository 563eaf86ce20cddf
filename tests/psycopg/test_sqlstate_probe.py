"""What PostgreSQL says in another language is understood by asking it again."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import psycopg.errors
import pytest

from edgepool.psycopg import _sqlstate_probe
from edgepool.psycopg._connect_errors import MOST_PROBES, ConnectErrors
from edgepool.psycopg._sqlstate_probe import ask
from edgepool.testing import PostgresServer
from support.parity import poll_until
from support.refused import (
    NO_DATABASE,
    NO_ROLE,
    STARTING_UP,
    TOO_MANY,
    WRONG_PASSWORD,
    ScriptedServer,
    failure,
    hopeless,
    hopeless_async,
    is_permanent,
    probe,
    probe_async,
    sqlstate_of,
    traces_refusals,
)

# Other languages


GERMAN = pytest.mark.parametrize(
    ("refusal", "permanent"),
    [
        (WRONG_PASSWORD, True),
        (NO_ROLE, True),
        (NO_DATABASE, True),
        (TOO_MANY, False),
        (STARTING_UP, False),
        (("08P01", "Protokollfehler"), False),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)


@GERMAN
def test_an_unknown_text_alone_does_not_tell(
    fake: ScriptedServer, refusal: tuple[str, str], permanent: bool
) -> None:
    fake.says(refusal)
    error = failure(fake.conninfo)

    assert refusal[1] in str(error)
    assert is_permanent(error) is None
    assert sqlstate_of(error) is None


@traces_refusals
@GERMAN
def test_an_unknown_text_is_understood_by_asking_again(
    fake: ScriptedServer, refusal: tuple[str, str], permanent: bool
) -> None:
    fake.says(refusal)
    errors = ConnectErrors()
    error = failure(fake.conninfo)

    assert hopeless(errors, error, fake.conninfo, 10) is permanent
    assert refusal[0] == errors.sqlstate_of(error)
    assert refusal[0] == probe(fake.conninfo, 10)


@traces_refusals
@GERMAN
async def test_an_unknown_text_is_understood_in_asyncio(
    fake: ScriptedServer, refusal: tuple[str, str], permanent: bool
) -> None:
    fake.says(refusal)
    errors = ConnectErrors()
    with pytest.raises(psycopg.OperationalError) as caught:
        await psycopg.AsyncConnection.connect(fake.conninfo)

    assert await hopeless_async(errors, caught.value, fake.conninfo, 10) is permanent
    assert refusal[0] == errors.sqlstate_of(caught.value)
    assert refusal[0] == await probe_async(fake.conninfo, 10)


@traces_refusals
@pytest.mark.parametrize("severity", ["ВАЖНО", "致命错误", "ÖLÜMCÜL (FATAL)"])
def test_the_severity_may_be_in_another_language(
    fake: ScriptedServer, severity: str
) -> None:
    fake.says(("28P01", "пользователь не прошёл проверку"), severity=severity)
    error = failure(fake.conninfo)

    assert hopeless(ConnectErrors(), error, fake.conninfo, 10) is True


@traces_refusals
def test_an_answer_of_several_lines_is_understood(fake: ScriptedServer) -> None:
    fake.says(("28P01", "falsches Passwort\nund noch eine Zeile"))

    assert "28P01" == probe(fake.conninfo, 10)


@traces_refusals
def test_a_text_is_asked_about_once(fake: ScriptedServer) -> None:
    errors = ConnectErrors()
    verdicts: list[bool] = []
    for refusal in [WRONG_PASSWORD, TOO_MANY] * 3:
        fake.says(refusal)
        verdicts.append(hopeless(errors, failure(fake.conninfo), fake.conninfo, 10))

    assert [True, False] * 3 == verdicts
    assert 6 + 2 == fake.attempts


def test_a_text_without_a_sqlstate_is_asked_about_once(fake: ScriptedServer) -> None:
    # What every text is to an older libpq.
    fake.says_raw("SFATAL\0Mnein\0\0")
    errors = ConnectErrors()
    for _ in range(3):
        assert hopeless(errors, failure(fake.conninfo), fake.conninfo, 10) is False

    assert 3 + 1 == fake.attempts


def test_what_is_known_is_not_asked_about(fake: ScriptedServer) -> None:
    fake.says(("28P01", 'password authentication failed for user "app"'))
    errors = ConnectErrors()

    assert hopeless(errors, failure(fake.conninfo), fake.conninfo, 10) is True
    assert hopeless(errors, TypeError(), fake.conninfo, 10) is True
    assert hopeless(errors, OSError(), fake.conninfo, 10) is False
    assert 1 == fake.attempts


@traces_refusals
def test_an_answer_counts_for_its_own_text_only(fake: ScriptedServer) -> None:
    # Between the failure and the probe the server has finished starting up.
    errors = ConnectErrors()
    fake.says(STARTING_UP, WRONG_PASSWORD)
    starting = failure(fake.conninfo)

    assert hopeless(errors, starting, fake.conninfo, 10) is False
    assert hopeless(errors, failure(fake.conninfo), fake.conninfo, 10) is True
    assert 3 == fake.attempts

    fake.says(STARTING_UP)
    assert hopeless(errors, starting, fake.conninfo, 10) is False
    assert "57P03" == errors.sqlstate_of(starting)


@traces_refusals
def test_who_fails_alike_meanwhile_does_not_ask_as_well(fake: ScriptedServer) -> None:
    fake.says(WRONG_PASSWORD, WRONG_PASSWORD, WRONG_PASSWORD)
    errors = ConnectErrors()
    first, second = failure(fake.conninfo), failure(fake.conninfo)
    fake.says_nothing()
    verdicts: list[bool] = []
    asking = threading.Thread(
        target=lambda: verdicts.append(hopeless(errors, first, fake.conninfo, 0.5))
    )
    asking.start()
    poll_until(lambda: fake.attempts == 3)

    assert hopeless(errors, second, fake.conninfo, 10) is False
    assert 3 == fake.attempts

    asking.join()
    assert [False] == verdicts
    fake.says(WRONG_PASSWORD)
    assert hopeless(errors, second, fake.conninfo, 10) is True


def test_a_server_that_never_repeats_itself_is_not_asked_for_ever(
    fake: ScriptedServer,
) -> None:
    errors = ConnectErrors()
    for number in range(MOST_PROBES + 10):
        fake.says(("XX000", f"Anfrage {number}"))
        assert hopeless(errors, failure(fake.conninfo), fake.conninfo, 10) is False

    assert 2 * MOST_PROBES + 10 == fake.attempts


# The probe


class Libpq:
    """Stands in for `PGconn` where the probe makes one, and keeps what it made."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.error: Exception | None = None

    def connect_start(self, conninfo: bytes) -> object:
        """Begin to connect."""
        if self.error is not None:
            raise self.error
        self.made.append(psycopg.pq.PGconn.connect_start(conninfo))
        return self.made[-1]


@pytest.fixture
def libpq(monkeypatch: pytest.MonkeyPatch) -> Libpq:
    libpq = Libpq()
    monkeypatch.setattr(_sqlstate_probe, "PGconn", libpq)
    return libpq


def test_a_probe_that_gets_in_sees_nothing_and_leaves(
    conninfo: str, admin: psycopg.Connection
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(conninfo)["application_name"]

    def sessions() -> int:
        query = "SELECT FROM pg_stat_activity WHERE application_name = %s"
        return admin.execute(query, [name]).rowcount

    assert probe(conninfo, 10) is None
    poll_until(lambda: sessions() == 0)


async def test_a_probe_that_gets_in_sees_nothing_in_asyncio(conninfo: str) -> None:
    assert await probe_async(conninfo, 10) is None


@pytest.mark.parametrize("conninfo", ["nonsense=1", "host=nowhere.invalid"])
async def test_a_probe_that_cannot_be_made_sees_nothing(conninfo: str) -> None:
    assert probe(conninfo, 10) is None
    assert await probe_async(conninfo, 10) is None


def test_a_probe_of_nobody_sees_nothing(nobody: int) -> None:
    assert probe(f"host=127.0.0.1 port={nobody}", 10) is None


def test_a_probe_ends_in_time(fake: ScriptedServer) -> None:
    started = time.monotonic()

    assert probe(fake.conninfo, 0.3) is None
    assert 0.25 < time.monotonic() - started < 2
    assert fake.was_left.wait(10)


async def test_a_probe_ends_in_time_in_asyncio(fake: ScriptedServer) -> None:
    started = time.monotonic()

    assert await probe_async(fake.conninfo, 0.3) is None
    assert 0.25 < time.monotonic() - started < 2
    assert fake.was_left.wait(10)


def test_a_verdict_on_a_frozen_server_comes_in_time(
    own_server: Callable[..., PostgresServer],
) -> None:
    server = own_server()
    error = psycopg.OperationalError("connection failed: FATAL:  was auch immer")
    server.freeze()
    started = time.monotonic()
    try:
        verdict = hopeless(ConnectErrors(), error, server.conninfo, 0.3)
    finally:
        server.thaw()

    assert verdict is False
    assert 0.25 < time.monotonic() - started < 2


def test_without_time_there_is_no_probe(fake: ScriptedServer, libpq: Libpq) -> None:
    fake.says(WRONG_PASSWORD)
    error = failure(fake.conninfo)

    assert hopeless(ConnectErrors(), error, fake.conninfo, 0) is False
    assert [] == libpq.made


async def test_a_cancelled_probe_leaves_and_may_be_repeated(
    fake: ScriptedServer,
) -> None:
    fake.says(WRONG_PASSWORD)
    error = failure(fake.conninfo)
    fake.says_nothing()
    errors = ConnectErrors()
    asking = asyncio.create_task(hopeless_async(errors, error, fake.conninfo, 10))
    while fake.attempts < 2:
        await asyncio.sleep(0.001)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    assert fake.was_left.wait(10)
    fake.says(WRONG_PASSWORD)
    expected = psycopg.pq.version() >= 180000 and sys.platform == "linux"
    assert await hopeless_async(errors, error, fake.conninfo, 10) is expected
    assert 3 == fake.attempts


def test_where_libpq_does_not_trace_nothing_is_tried(
    fake: ScriptedServer, libpq: Libpq, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.says(WRONG_PASSWORD)
    error = failure(fake.conninfo)
    monkeypatch.setattr(sys, "platform", "darwin")

    assert hopeless(ConnectErrors(), error, fake.conninfo, 10) is False
    assert probe(fake.conninfo, 10) is None
    assert [] == libpq.made


def test_without_a_place_for_files_the_verdict_is_to_wait(
    fake: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.says(WRONG_PASSWORD)
    error = failure(fake.conninfo)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))

    assert hopeless(ConnectErrors(), error, fake.conninfo, 10) is False


def test_an_attempt_is_finished_at_once(
    fake: ScriptedServer, conninfo: str, libpq: Libpq
) -> None:
    probe(conninfo, 10)
    fake.says(NO_DATABASE)
    probe(fake.conninfo, 10)
    fake.says_nothing()
    probe(fake.conninfo, 0.1)
    given_up = ask(fake.conninfo, 10)
    next(given_up)
    given_up.close()

    assert [None] * 4 == [pgconn.pgconn_ptr for pgconn in libpq.made]


async def test_an_attempt_that_fails_oddly_sees_nothing(
    libpq: Libpq, conninfo: str
) -> None:
    libpq.error = psycopg.OperationalError("out of memory")

    assert probe(conninfo, 10) is None
    assert await probe_async(conninfo, 10) is None


# Secrets


@pytest.mark.skipif(sys.platform != "linux", reason="libpq traces on Linux only")
def test_the_trace_has_no_name_and_is_gone_afterwards(
    fake: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def open_files() -> list[str]:
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        names = [os.readlink(link) for link in links if os.path.islink(link)]
        return [name for name in names if name.startswith(str(tmp_path))]

    attempt = ask(fake.conninfo, 10)
    next(attempt)

    assert 1 == len(open_files())
    assert [] == list(tmp_path.iterdir())

    attempt.close()
    assert [] == open_files()


@traces_refusals
def test_a_password_sent_in_clear_goes_nowhere_else(
    fake: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    fake.asks_for_password = True
    fake.says(WRONG_PASSWORD)
    errors = ConnectErrors()
    error = failure(fake.conninfo)

    assert hopeless(errors, error, fake.conninfo, 10) is True
    assert ["Zebra-7\0"] * 2 == fake.passwords
    assert "<ConnectErrors 1 texts learned>" == repr(errors)
    printed = capfd.readouterr()
    assert "Zebra" not in caplog.text + printed.out + printed.err
