"""Arguments that cannot be: said at once, with their name and value."""

from __future__ import annotations

import math

import pytest

from support.parity import entered, result
from support.pg import at_rest, error_of


async def called(method, *arguments, **keywords):
    return await result(method(*arguments, **keywords))


@pytest.mark.parametrize("name", ["configure", "check", "reset", "classify"])
def test_what_is_to_be_called_must_be_a_function(colour, name):
    with pytest.raises(TypeError, match=rf"^{name} must be a function, not 5$"):
        colour.Pool("", open=False, **{name: 5})


@pytest.mark.parametrize("name", ["configure", "check"])
def test_only_reset_may_be_a_word(colour, name):
    with pytest.raises(TypeError, match=rf"^{name} must be a function, not 'clean'$"):
        colour.Pool("", open=False, **{name: "clean"})


def test_a_pool_that_keeps_none_is_told_how_many_there_may_be(colour):
    expected = r"^if min_size is 0, max_size must be given: at least 1"
    with pytest.raises(ValueError, match=rf"{expected}$"):
        colour.Pool("", open=False, min_size=0)

    where = r"EDGEPOOL_MIN_SIZE=0 in the environment"
    environ = {"DATABASE_URL": "postgresql:///", "EDGEPOOL_MIN_SIZE": "0"}
    with pytest.raises(ValueError, match=rf"{expected} \({where}\)$"):
        colour.Pool.from_env(environ=environ)


def test_a_number_of_workers_is_a_whole_number(colour):
    with pytest.raises(TypeError, match=r"^num_workers must be a number, not '3'$"):
        colour.Pool("", open=False, num_workers="3")
    with pytest.raises(ValueError, match=r"^num_workers must be at least 1, not 0$"):
        colour.Pool("", open=False, num_workers=0)


def test_what_is_to_connect_must_be_a_class_that_can(colour):
    with pytest.raises(TypeError, match=r"^connection_class must be .* not 5$"):
        colour.Pool("", open=False, connection_class=5)


@pytest.mark.parametrize(
    ("timeout", "kind"), [(math.nan, ValueError), ("5", TypeError)]
)
@pytest.mark.parametrize("call", ["getconn", "open", "wait", "close", "execute"])
async def test_a_timeout_that_is_no_number_is_refused_and_changes_nothing(
    colour, conninfo, call, timeout, kind
):
    arguments = ["SELECT 1"] if call == "execute" else []
    async with colour.pool(conninfo, min_size=1) as pool:
        await at_rest(pool, 1)
        async with entered(pool.connection()):
            error = await error_of(
                called(getattr(pool, call), *arguments, timeout=timeout)
            )

        assert kind is type(error)
        assert f"timeout must be a number of seconds, not {timeout!r}" == str(error)
        assert not pool.closed

        await at_rest(pool, 1)


async def test_a_close_that_is_refused_ends_no_listener(colour, conninfo):
    async with colour.pool(conninfo, min_size=0, max_size=1) as pool:
        listener = pool.listen("news")

        assert isinstance(await error_of(called(pool.close, "5")), TypeError)
        assert await called(listener.get, 0.0) is None


async def test_a_listener_takes_numbers_of_seconds(colour, conninfo):
    async with colour.pool(conninfo, min_size=0, max_size=1) as pool:
        error = await error_of(called(pool.listen, "news", timeout="5"))

        assert "timeout must be a number of seconds, not '5'" == str(error)

        listener = pool.listen("news")
        error = await error_of(called(listener.get, math.nan))

        assert "timeout must be a number of seconds, not nan" == str(error)


@pytest.mark.parametrize("over", [-1.0, math.inf, math.nan, "5"])
async def test_a_drain_must_come_to_an_end(colour, conninfo, over):
    async with colour.pool(conninfo, min_size=1) as pool:
        error = await error_of(called(pool.drain, over=over))

        if isinstance(over, str):
            assert "over must be a number, not '5'" == str(error)
        else:
            assert isinstance(error, ValueError)
            assert f"over must be at least 0 and finite, not {over!r}" == str(error)


async def test_a_connection_with_slots_of_its_own_keeps_them(colour, conninfo):
    class Slotted(colour.Connection):
        __slots__ = ("tenant",)

    async def configure(conn):
        conn.tenant = "nobody"

    async with colour.pool(
        conninfo,
        min_size=1,
        connection_class=Slotted,
        configure=colour.callback(configure),
    ) as pool:
        kept = []
        for _ in range(3):
            async with entered(pool.connection()) as conn:
                kept.append(conn)

                assert "nobody" == conn.tenant

        assert 3 == len({id(conn) for conn in kept})
