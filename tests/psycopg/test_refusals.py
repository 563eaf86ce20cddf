"""Where waiting cannot help nobody waits, and the error says why."""

from __future__ import annotations

import threading

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from edgepool import ConnectFailed, PoolTimeout
from support.parity import borrowed, entered, eventually, lend, pid, result, spawn
from support.pg import at_rest, borrow_error
from support.profile import GUARD

# A connect, and another one if that has to ask what the first was told; in seconds.
# The pool's timeout is 30.
TOLD = 0.3


def waiting(pool):
    return pool.get_stats()["requests_waiting"]


def connect_errors(pool):
    return pool.get_stats().get("connections_errors", 0)


async def answer(pool):
    """Give the cause of an error that comes at once."""
    error, took = await borrow_error(pool)

    assert took < TOLD + GUARD
    assert isinstance(error, ConnectFailed)
    assert isinstance(error, PoolTimeout)
    assert str(error.__cause__) in str(error)

    return error.__cause__


@pytest.mark.parametrize("min_size", [0, 2])
async def test_a_wrong_password_is_told_at_once(colour, role, min_size):
    conninfo = role.conninfo(password="wrong")
    async with colour.pool(conninfo, min_size=min_size, max_size=4) as pool:
        cause = await answer(pool)

    assert isinstance(cause, psycopg.OperationalError)
    assert "password authentication failed" in str(cause)


async def test_a_missing_password_is_told_at_once(colour, role):
    async with colour.pool(role.conninfo(), min_size=1) as pool:
        assert "no password supplied" in str(await answer(pool))


async def test_an_unknown_database_is_told_at_once(colour, conninfo):
    elsewhere = make_conninfo(conninfo, dbname="nowhere")
    async with colour.pool(elsewhere, min_size=1) as pool:
        assert 'database "nowhere" does not exist' in str(await answer(pool))


async def test_an_unknown_role_is_told_at_once(colour, conninfo):
    nobody = make_conninfo(conninfo, user="nobody_of_that_name")
    async with colour.pool(nobody, min_size=1) as pool:
        assert "does not exist" in str(await answer(pool))


async def test_an_unknown_parameter_is_told_at_once(colour, conninfo):
    coloured = make_conninfo(conninfo, options="-c colour=red")
    async with colour.pool(coloured, min_size=1) as pool:
        assert 'parameter "colour"' in str(await answer(pool))


async def test_what_a_pooler_does_not_pass_on_is_told_at_once(colour, bouncer):
    conninfo = bouncer("transaction").conninfo_for(options="-c jit=off")
    async with colour.pool(conninfo, min_size=1) as pool:
        cause = str(await answer(pool))

    assert "unsupported startup parameter" in cause  # which, differs with releases
    assert "Leave the parameter out, or name it in PgBouncer's" in cause


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"sslmode": "require"}, "does not support SSL, but SSL was required"),
        ({"channel_binding": "require"}, "channel binding required"),
        ({"require_auth": "scram-sha-256"}, 'requirement "scram-sha-256" failed'),
    ],
)
async def test_a_server_that_is_not_as_it_has_to_be_is_told_at_once(
    colour, server, parameters, said
):
    conninfo = server.conninfo_for(**parameters)
    async with colour.pool(conninfo, min_size=1) as pool:
        assert said in str(await answer(pool))


@pytest.mark.parametrize(
    ("host", "root", "said"),
    [
        ("127.0.0.1", "system", "certificate verify failed"),
        ("127.0.0.1", "/nowhere.crt", 'certificate file "/nowhere.crt" does not exist'),
        ("localhost", "server.crt", 'does not match host name "localhost"'),
    ],
)
async def test_a_certificate_that_does_not_hold_is_told_at_once(
    colour, tls_server, host, root, said
):
    root = tls_server.directory / root if root == "server.crt" else root
    conninfo = tls_server.conninfo_for(
        host=host, hostaddr="127.0.0.1", sslmode="verify-full", sslrootcert=root
    )
    async with colour.pool(conninfo, min_size=1) as pool:
        assert said in str(await answer(pool))


async def test_a_pooler_that_wants_tls_is_told_at_once(colour, bouncer, tls_server):
    kept = tls_server.directory
    conninfo = bouncer(
        "transaction",
        client_tls_sslmode="require",
        client_tls_cert_file=kept / "server.crt",
        client_tls_key_file=kept / "server.key",
    ).conninfo_for(sslmode="disable")
    async with colour.pool(conninfo, min_size=1) as pool:
        cause = await answer(pool)

    assert "SSL required" in str(cause)
    assert "28000" == cause.sqlstate


@pytest.mark.parametrize(
    ("conninfo", "said"),
    [
        ("host=127.0.0.1 nonsense", 'missing "=" after ...'),
        ("no_such_option=1", 'invalid connection option "no_such_option"'),
        ("postgresql://[::1", 'looking for matching "]" in IPv6 host address in URI'),
        ("postgresql://h/?a=b=c", 'key/value separator "=" in URI query parameter: ..'),
        ("postgresql://a:b%z@h/", "invalid percent-encoded token: ..."),
    ],
)
async def test_an_invalid_conninfo_is_told_at_once(colour, conninfo, said):
    async with colour.pool(conninfo, min_size=1) as pool:
        cause = await answer(pool)

        assert isinstance(cause, psycopg.ProgrammingError)
        assert said in str(cause)


@pytest.mark.parametrize("parameters", ["sslmode=fish", "port=none", "port=99999"])
async def test_an_invalid_parameter_is_told_at_once(colour, parameters):
    async with colour.pool(
        f"host=127.0.0.1 {parameters}", min_size=1, timeout=1.0
    ) as pool:
        error, _ = await borrow_error(pool)

        assert isinstance(error, ConnectFailed)


@pytest.mark.parametrize("kind", [TypeError, KeyError, AttributeError, NameError])
@pytest.mark.parametrize("argument", ["conninfo", "kwargs", "configure"])
async def test_a_bug_in_a_callable_is_told_at_once(colour, conninfo, argument, kind):
    async def buggy(*arguments):
        raise kind("oh no")

    arguments = {"conninfo": conninfo, argument: colour.callback(buggy)}
    async with colour.pool(**arguments, min_size=1) as pool:
        cause = await answer(pool)

    assert type(cause) is kind
    assert cause.args == ("oh no",)


async def test_many_are_told_at_once(colour, role):
    conninfo = role.conninfo(password="wrong")
    async with colour.pool(conninfo, min_size=0, max_size=4) as pool:
        answers = [spawn(answer, pool) for _ in range(20)]

        assert all([await one for one in answers])


async def test_who_comes_later_is_told_too(colour, role):
    conninfo = role.conninfo(password="wrong")
    async with colour.pool(conninfo, min_size=1) as pool:
        for _ in range(5):
            assert "password" in str(await answer(pool))


async def test_opening_a_pool_that_cannot_connect_is_told_at_once(colour, role):
    conninfo = role.conninfo(password="wrong")
    pool = colour.Pool(conninfo, min_size=2, open=False)
    with pytest.raises(ConnectFailed) as caught:
        await result(pool.open(wait=True))

    assert "password" in str(caught.value.__cause__)
    assert pool.closed


# --- where waiting can help -----------------------------------------------------------


async def test_a_callable_that_fails_for_a_while_is_waited_for(colour, conninfo):
    failures = [OSError("token service is away"), ValueError("garbled token")] * 2

    async def token():
        if failures:
            raise failures.pop()
        return conninfo

    async with colour.pool(colour.callback(token), min_size=1) as pool:
        assert await lend(pool)

    assert [] == failures


async def test_a_pool_with_a_connection_out_keeps_its_waiters(colour, role):
    conninfo = role.conninfo(password="right")
    async with colour.pool(conninfo, min_size=1, max_size=3) as pool:
        async with entered(pool.connection()) as conn:
            mine = pid(conn)
            role.set_password("new")
            waiters = [spawn(lend, pool) for _ in range(4)]
            await eventually(lambda: connect_errors(pool) >= 3)

            assert waiting(pool) == 4

        # Nobody was told; the one connection serves them all.
        assert [mine] * 4 == [await waiter for waiter in waiters]


async def test_who_waits_for_a_connection_that_is_out_learns_why_in_the_end(
    colour, role
):
    conninfo = role.conninfo(password="right")
    async with (
        colour.pool(conninfo, min_size=1, max_size=3) as pool,
        borrowed(pool, 1),
    ):
        role.set_password("new")
        error, _ = await borrow_error(pool, 0.3)

    assert type(error) is PoolTimeout
    assert "password authentication failed" in str(error.__cause__)
    assert (error.size - error.opening, error.in_use) == (1, 1)


# --- recovery -------------------------------------------------------------------------


async def test_a_password_put_right_is_noticed(colour, role):
    conninfo = role.conninfo(password="new")
    async with colour.pool(conninfo, min_size=0, max_size=2) as pool:
        await answer(pool)
        role.set_password("new")

        assert await lend(pool)


async def test_a_pool_fills_up_when_the_password_is_put_right(colour, role):
    """Though nobody borrows."""
    conninfo = role.conninfo(password="new")
    async with colour.pool(conninfo, min_size=2) as pool:
        await answer(pool)
        role.set_password("new")
        await at_rest(pool, 2)


async def test_a_conninfo_put_right_is_used(colour, role):
    wrong, right = role.conninfo(password="wrong"), role.conninfo(password="right")
    async with colour.pool(wrong, min_size=0, max_size=2) as pool:
        await answer(pool)
        pool.conninfo = right

        assert await lend(pool)


async def test_an_attempt_from_before_does_not_answer_for_now(colour, role):
    """Who sets things right and then borrows asks about the present."""
    asked = []
    put_right = threading.Event()

    async def conninfo():
        asked.append(put_right.is_set())
        if len(asked) > 1:
            return role.conninfo(password="right")
        # The first attempt has begun, and will fail after the second waiter came.
        await eventually(put_right.is_set)
        return role.conninfo(password="wrong")

    async with colour.pool(colour.callback(conninfo), min_size=1) as pool:
        await eventually(lambda: asked)
        served = spawn(lend, pool)
        await eventually(lambda: waiting(pool) == 1)
        put_right.set()

        assert await served


async def test_a_password_that_changes_with_time_is_asked_for_each_time(colour, role):
    passwords = ["right"]

    async def conninfo():
        return role.conninfo(password=passwords[-1])

    async with colour.pool(colour.callback(conninfo), min_size=1) as pool:
        await lend(pool)
        role.set_password("new")
        passwords.append("new")
        await result(pool.drain())
        await at_rest(pool, 1)

        assert await lend(pool)
