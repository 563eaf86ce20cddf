"""Passwords that change: asked for once, ahead of time, and told to nobody."""

from __future__ import annotations

import logging
import os
import threading
import time
from types import SimpleNamespace

import pytest

import edgepool.psycopg._connecting
import edgepool.psycopg._credential_sources
import edgepool.psycopg._credentials
import edgepool.psycopg._leases
import edgepool.psycopg._pool
from edgepool import (
    ConnectFailed,
    Credential,
    CredentialsError,
    ErrorClass,
    PermanentError,
    PoolTimeout,
)
from edgepool.psycopg._credential_sources import BlockingCredentials
from edgepool.psycopg._credentials import Held
from support.parity import (
    PATIENCE,
    entered,
    eventually,
    execute,
    lend,
    result,
    spawn,
)
from support.pg import at_rest, beside, borrow_error, load, more

SECRET = "Zebra-7"


class Provider:
    """A provider that gives what it was told to give, once it may."""

    def __init__(self, answer):
        self.answer = answer
        self.calls = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self):
        self.calls += 1
        if not self.may_answer.wait(PATIENCE):
            raise AssertionError("nobody let it answer")
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def provider():
    return Provider("right")


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self._now = time.monotonic()

    def now(self):
        return self._now

    def __call__(self, seconds):
        self._now += seconds


@pytest.fixture
def later(monkeypatch):
    """Stop the clock of the credentials, and move it: `later(60)`."""
    clock = Clock()
    for module in (
        edgepool.psycopg._connecting,
        edgepool.psycopg._credential_sources,
        edgepool.psycopg._credentials,
    ):
        monkeypatch.setattr(module, "monotonic", clock.now)
    return clock


def texts_of(error):
    """Give all that a report of an error could show."""
    while error is not None:
        yield from (str(error), repr(error))
        error = error.__cause__ or error.__context__


# --- what a provider may be, and give -------------------------------------------------


async def test_a_provider_gives_the_password(colour, role, provider):
    async with colour.pool(role.conninfo(), min_size=1, credentials=provider) as pool:
        assert await lend(pool)


async def test_it_may_give_the_role_as_well(colour, role, guarded, provider):
    provider.answer = Credential("right", user=role.name)
    conninfo = guarded.conninfo_for(user="nobody", password="wrong")
    async with colour.pool(conninfo, min_size=1, credentials=provider) as pool:
        conn = await result(pool.getconn())

        assert role.name == conn.info.user

        await result(pool.putconn(conn))


async def test_it_has_expired_if_the_machine_was_suspended_for_so_long(
    colour, role, provider, monkeypatch
):
    gained = [0.0]
    wall = SimpleNamespace(time=lambda: time.time() + gained[0])
    monkeypatch.setattr(edgepool.psycopg._credentials, "time", wall)
    provider.answer = Credential("right", expires_in=900)
    async with colour.null_pool(role.conninfo(), credentials=provider) as pool:
        for gained[0], calls in ((0.0, 1), (800.0, 1), (900.0, 2)):
            await lend(pool)

            assert calls == provider.calls


async def test_a_direct_connection_has_the_same(colour, role, provider):
    async with colour.pool(role.conninfo(), min_size=1, credentials=provider) as pool:
        await at_rest(pool, 1)
        async with entered(pool.direct()) as conn:
            assert role.name == conn.info.user

        assert 1 == provider.calls


async def test_it_may_be_a_coroutine_function(colour, role):
    async def provide():
        return "right"

    if not colour.asynchronous:
        with pytest.raises(TypeError, match="credentials must not be a coroutine"):
            colour.Pool(role.conninfo(), credentials=provide)
        return
    for provider in (provide, lambda: provide()):
        async with colour.pool(
            role.conninfo(), min_size=1, credentials=provider
        ) as pool:
            assert await lend(pool)


async def test_what_cannot_be_called_is_refused(colour):
    with pytest.raises(TypeError) as caught:
        colour.Pool(credentials=SECRET)

    assert "credentials must be a function, not str" == str(caught.value)


@pytest.mark.parametrize("answer", [SECRET.encode(), None, {"password": SECRET}])
async def test_what_is_no_credential_is_told_at_once(colour, role, provider, answer):
    provider.answer = answer
    async with colour.pool(role.conninfo(), min_size=1, credentials=provider) as pool:
        error, _ = await borrow_error(pool)

    assert isinstance(error, ConnectFailed)
    assert isinstance(error.__cause__, CredentialsError)
    assert f"not {type(answer).__name__}" in str(error)
    assert not any(SECRET in text for text in texts_of(error))


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"password": b"x"}, TypeError, "must be a str, not bytes"),
        ({"expires_in": 0.0}, ValueError, "expires_in must be greater than 0, not 0.0"),
        ({"expires_in": float("nan")}, ValueError, "not nan"),
        ({"expires_at": -1.0}, ValueError, "expires_at must be greater than 0"),
        ({"expires_in": 1.0, "expires_at": 1.0}, ValueError, "not both"),
    ],
)
def test_a_credential_that_cannot_be_is_refused(arguments, kind, text):
    with pytest.raises(kind, match=text) as caught:
        Credential(**{"password": SECRET, **arguments})

    assert SECRET not in str(caught.value)


def test_a_moment_is_taken_as_time_tells_it(monkeypatch):
    told = SimpleNamespace(time=lambda: 5_000.0)
    monkeypatch.setattr(edgepool.psycopg._credentials, "time", told)
    held = Held(Credential("x", expires_at=5_900.0), 100.0)

    assert (1000.0, 940.0) == (held.expires_at, held.refresh_at)


def test_a_short_life_is_not_spent_on_renewals():
    held = Held(Credential("x", expires_in=60.0), 100.0)

    assert 148.0 == held.refresh_at


# --- how often it is asked ------------------------------------------------------------


async def test_many_connects_ask_once(colour, role, provider):
    provider.may_answer.clear()
    async with colour.pool(role.conninfo(), min_size=8, credentials=provider) as pool:
        await eventually(lambda: pool.statistics().opening == 8)
        provider.may_answer.set()
        await at_rest(pool, 8)

        assert 1 == provider.calls

        await result(pool.drain())
        await at_rest(pool, 8)

        assert 1 == provider.calls


async def test_a_renewal_is_in_nobodys_way(colour, role, provider, later):
    provider.answer = Credential("right", expires_in=900.0)
    async with colour.pool(role.conninfo(), min_size=1, credentials=provider) as pool:
        await at_rest(pool, 1)
        later(839.0)
        await result(pool.drain())
        await at_rest(pool, 1)

        assert 1 == provider.calls

        later(2.0)
        provider.may_answer.clear()
        await result(pool.drain())

        assert await lend(pool)

        await eventually(lambda: provider.calls == 2)
        provider.may_answer.set()
        await eventually(lambda: not pool._adapter._credentials._flights)
        # What came is used from now on.
        later(100.0)
        await result(pool.drain())

        assert await lend(pool)
        assert 2 == provider.calls


async def test_what_has_expired_is_not_used(colour, role, provider, later):
    provider.answer = Credential("right", expires_in=900.0)
    async with colour.pool(role.conninfo(), min_size=1, credentials=provider) as pool:
        await at_rest(pool, 1)
        later(901.0)
        await beside(role.set_password, "next")
        provider.answer = "next"
        await result(pool.drain())

        assert await lend(pool)
        assert 0 == pool.statistics().connect_errors


async def test_a_renewal_that_fails_is_logged_and_tried_again_later(
    colour, role, provider, later, caplog
):
    provider.answer = Credential("right", expires_in=900.0)
    async with colour.pool(role.conninfo(), min_size=1, credentials=provider) as pool:
        await at_rest(pool, 1)
        later(850.0)
        provider.answer = RuntimeError(SECRET)
        for _ in range(3):
            await result(pool.drain())
            await at_rest(pool, 1)
            await eventually(lambda: not pool._adapter._credentials._flights)

        assert 2 == provider.calls

        later(0.9)
        await result(pool.drain())
        await at_rest(pool, 1)

        assert 2 == provider.calls

        later(0.2)
        await result(pool.drain())
        await eventually(lambda: provider.calls == 3)

    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]

    assert f"{pool.name}: cannot renew the credentials: the credentials" in lines[0]
    assert SECRET not in caplog.text


def test_a_forked_child_does_not_wait_for_what_its_parent_asks():
    asked = threading.Event()
    credentials = BlockingCredentials(lambda: asked.set() or "right", lambda: "pool")
    hanging = credentials._new_flight(time.monotonic())
    credentials._flights[os.getpid() + 1] = hanging

    assert "right" == credentials.get().credential.password
    assert asked.is_set()


# --- a server that does not admit it --------------------------------------------------


async def test_a_password_that_was_changed_under_load_costs_nobody_an_error(
    colour, role, provider
):
    """Connections come and go all the time, and the server changes its mind."""
    async with (
        colour.pool(
            role.conninfo(),
            min_size=4,
            max_size=8,
            max_lifetime=0.05,
            credentials=provider,
        ) as pool,
        load(pool, 16) as busy,
    ):
        for number in range(3):
            await more(busy, 50)
            provider.answer = f"password {number}"
            await beside(role.set_password, provider.answer)
            opened = pool.statistics().connects
            await eventually(lambda: pool.statistics().connects > opened + 8)  # noqa: B023
        await more(busy, 50)

        assert [] == busy.errors
        assert 0 == pool.statistics().connect_errors
        # Rejected connects ask once more; those of the same moment together.
        assert provider.calls <= 1 + 3


async def test_a_credential_that_is_not_admitted_is_asked_for_once_more(
    colour, role, provider, later
):
    provider.answer = "wrong"
    async with colour.pool(
        role.conninfo(), min_size=0, max_size=4, credentials=provider
    ) as pool:
        for _ in range(3):
            error, _ = await borrow_error(pool)

            assert isinstance(error, ConnectFailed)
            assert "28P01" == error.__cause__.sqlstate

        assert 2 == provider.calls


async def test_it_is_asked_for_again_after_a_moment(colour, role, provider, later):
    provider.answer = "wrong"
    async with colour.pool(
        role.conninfo(), min_size=0, max_size=4, credentials=provider
    ) as pool:
        await borrow_error(pool)
        provider.answer = "right"
        await borrow_error(pool)
        later(0.9)
        await borrow_error(pool)

        assert 2 == provider.calls

        later(0.2)

        assert await lend(pool)
        assert 3 == provider.calls


async def test_it_is_asked_for_whatever_the_error_means_to_who_waits(
    colour, role, provider
):
    """Else a pool that goes on trying would do so with this one for ever."""

    def classify(error):
        return ErrorClass.ORDINARY if error.sqlstate == "28P01" else None

    provider.answer = "wrong"
    async with colour.pool(
        role.conninfo(), min_size=1, credentials=provider, classify=classify
    ) as pool:
        await eventually(lambda: pool.statistics().connect_errors >= 1)
        provider.answer = "right"

        assert await lend(pool)


async def test_it_is_asked_for_though_another_host_is_down(
    colour, role, guarded, provider
):
    conninfo = role.conninfo(host="127.0.0.1,127.0.0.1", port=f"1,{guarded.port}")
    provider.answer = "wrong"
    async with colour.pool(conninfo, min_size=1, credentials=provider) as pool:
        await eventually(lambda: pool.statistics().connect_errors >= 1)
        provider.answer = "right"

        assert await lend(pool)


async def test_an_empty_password_is_a_wrong_one(colour, role, provider, later):
    """As that of a file which is being written."""
    provider.answer = ""
    async with colour.pool(
        role.conninfo(), min_size=0, max_size=4, credentials=provider
    ) as pool:
        error, _ = await borrow_error(pool)

        assert isinstance(error, ConnectFailed)
        assert 2 == provider.calls

        provider.answer = "right"
        later(1.1)

        assert await lend(pool)


async def test_other_errors_do_not_cost_the_credential(colour, role, provider):
    role.set_limit(0)
    async with colour.pool(role.conninfo(), min_size=1, credentials=provider) as pool:
        await eventually(lambda: pool.statistics().connect_errors >= 2)
        await beside(role.set_limit, -1)

        assert await lend(pool)
        assert 1 == provider.calls


# --- a provider that does not answer --------------------------------------------------


async def test_a_provider_that_fails_is_like_a_connect_that_fails(
    colour, role, provider, caplog
):
    caplog.set_level(logging.DEBUG)
    provider.answer = RuntimeError(f"no such token: {SECRET}")
    async with colour.pool(
        role.conninfo(), min_size=0, max_size=4, credentials=provider
    ) as pool:
        error, _ = await borrow_error(pool, 0.2)

        assert type(error) is PoolTimeout
        assert isinstance(error.__cause__, CredentialsError)
        assert "provider raised RuntimeError at test_credentials.py:" in str(
            error.__cause__
        )
        assert not any(SECRET in text for text in texts_of(error))
        assert SECRET not in caplog.text

        served = spawn(lend, pool)
        provider.answer = "right"

        assert await served


@pytest.mark.parametrize("kind", [StopIteration, SystemExit, KeyboardInterrupt])
async def test_whatever_a_provider_raises_is_told(colour, role, provider, kind):
    provider.answer = kind()
    async with colour.pool(role.conninfo(), min_size=1, credentials=provider) as pool:
        await eventually(lambda: pool.statistics().connect_errors >= 1)
        error, _ = await borrow_error(pool, 0.05)

        assert f"provider raised {kind.__name__} at" in str(error.__cause__)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermanentError("there is no vault"), "there is no vault"),
        (KeyError(SECRET), "raised KeyError at"),
    ],
)
async def test_a_provider_may_fail_for_good(colour, role, provider, error, text):
    provider.answer = error
    async with colour.pool(
        role.conninfo(), min_size=0, max_size=4, credentials=provider
    ) as pool:
        error, _ = await borrow_error(pool)

        assert isinstance(error, ConnectFailed)
        assert isinstance(error.__cause__, CredentialsError)
        assert text in str(error)
        assert not any(SECRET in text for text in texts_of(error))


async def test_a_provider_that_hangs_is_given_up(colour, role, provider, monkeypatch):
    monkeypatch.setattr(edgepool.psycopg._credentials, "FETCH", 0.2)
    provider.may_answer.clear()
    async with colour.pool(
        role.conninfo(), min_size=0, max_size=4, credentials=provider
    ) as pool:
        error, took = await borrow_error(pool, 0.05)

        assert 0.05 <= took < PATIENCE
        assert type(error) is PoolTimeout

        await eventually(lambda: pool.statistics().connect_errors >= 1)
        error, _ = await borrow_error(pool, 0.05)

        assert "has not answered within 0.2 s" in str(error.__cause__)

        provider.may_answer.set()

        assert await lend(pool)


async def test_a_pool_closes_though_its_provider_hangs(colour, role, provider):
    provider.may_answer.clear()
    async with colour.pool(role.conninfo(), min_size=1, credentials=provider) as pool:
        await eventually(lambda: provider.calls == 1)
        started = time.monotonic()
        await result(pool.close(timeout=0.1))

        assert time.monotonic() - started < PATIENCE / 2
    provider.may_answer.set()


# --- connections that are older than their credential ---------------------------------


@pytest.mark.parametrize("expire", [False, True])
async def test_a_connection_may_outlive_its_credential_or_not(
    colour, role, provider, later, monkeypatch, expire
):
    for module in (edgepool.psycopg._leases, edgepool.psycopg._pool):
        monkeypatch.setattr(module, "monotonic", later.now)
    provider.answer = Credential("right", expires_in=900.0)
    arguments = {"min_size": 0, "max_size": 1, "credentials": provider}
    if expire:
        arguments["expire_with_credentials"] = True
    async with colour.pool(role.conninfo(), **arguments) as pool:
        pool._engine.clock = later.now
        mine = await lend(pool)
        later(800.0)  # ahead of the end it may be replaced already

        assert mine == await lend(pool)

        later(100.0)

        assert expire is (mine != await lend(pool))


# --- nobody is told -------------------------------------------------------------------


def test_a_credential_does_not_show_its_password():
    shown = repr(Credential(SECRET, user="app", expires_in=900.0))

    assert "Credential(user='app', expires_in=900.0, expires_at=None)" == shown


async def test_nothing_shows_the_password(colour, role, provider, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    provider.answer = Credential(SECRET, expires_in=900.0)
    async with colour.pool(role.conninfo(), min_size=1, credentials=provider) as pool:
        error, _ = await borrow_error(pool)
        await beside(role.set_password, SECRET)

        assert await lend(pool)

        conn = await result(pool.getconn())
        cursor = await execute(
            conn, "select * from pg_stat_activity where pid = pg_backend_pid()"
        )
        row = await result(cursor.fetchone())
        await result(pool.putconn(conn))
        shown = [
            *texts_of(error),
            *map(
                repr, (pool, conn, row, pool.statistics(), pool._adapter._credentials)
            ),
            *map(repr, (pool.conninfo, pool.kwargs, pool.get_stats())),
            caplog.text,
            *capfd.readouterr(),
        ]

    assert isinstance(error, ConnectFailed)
    assert [] == [text for text in shown if SECRET in text]
