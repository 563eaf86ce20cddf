"""Which server a pool asks libpq for, and what it makes of one that takes no write."""

from __future__ import annotations

import psycopg
import pytest

from edgepool import ConnectFailed
from edgepool.psycopg._role import Placement
from support.parity import entered, eventually, execute, lend
from support.pg import borrow_error, error_of

ATTRS = "target_session_attrs"


class Told:
    """A session that was told of these parameters."""

    def __init__(self, **parameters):
        self._parameters = parameters

    def parameter_status(self, name):
        value = self._parameters.get(name.decode())
        return None if value is None else value.encode()


PRIMARY = Told(in_hot_standby="off", default_transaction_read_only="off")
RETIRING = Told(in_hot_standby="off", default_transaction_read_only="on")
STANDBY = Told(in_hot_standby="on", default_transaction_read_only="off")
OLD = Told()  # before PostgreSQL 14


@pytest.mark.parametrize(
    ("role", "given", "asked"),
    [
        ("primary", None, "read-write"),
        ("primary", "any", "read-write"),
        ("primary", "read-write", "read-write"),
        ("primary", "primary", "primary"),
        ("standby", None, "standby"),
        ("standby", "any", "standby"),
        ("standby", "standby", "standby"),
    ],
)
def test_what_libpq_is_asked_for(role, given, asked):
    by_dsn = f"host=h {ATTRS}={given}" if given else "host=h"
    by_kwargs = {ATTRS: given} if given else {}

    assert {ATTRS: asked} == Placement(role, by_dsn, None).arguments(by_dsn, {})
    assert {ATTRS: asked} == Placement(role, "", by_kwargs).arguments("", by_kwargs)


@pytest.mark.parametrize("given", ["any", "primary", "prefer-standby"])
def test_without_a_role_what_is_given_counts(given):
    dsn = f"postgresql://h/?{ATTRS}={given}"

    assert {} == Placement("any", dsn, None).arguments(dsn, {})


CONTRADICTIONS = [
    *(("primary", given) for given in ("standby", "prefer-standby", "read-only")),
    *(("standby", given) for given in ("primary", "read-write", "read-only")),
    ("standby", "prefer-standby"),
]


@pytest.mark.parametrize(("role", "given"), CONTRADICTIONS)
def test_a_contradiction_is_refused(colour, role, given):
    for arguments in (
        {"conninfo": f"postgresql://u:hush@h/?{ATTRS}={given}"},
        {"conninfo": "password=hush", "kwargs": {ATTRS: given}},
    ):
        with pytest.raises(ValueError, match=ATTRS) as caught:
            colour.Pool(**arguments, role=role)

        assert f"role={role!r} contradicts {ATTRS}={given!r}" in str(caught.value)
        assert "hush" not in str(caught.value)


def test_another_word_is_refused(colour):
    with pytest.raises(ValueError, match="'primary', 'standby' or 'any', not 'leader'"):
        colour.Pool("", role="leader")


def test_a_dsn_may_say_it():
    from edgepool import ConnectionPool

    with pytest.raises(ValueError, match="pool_role=leader in the connection string"):
        ConnectionPool("postgresql://h/?pool_role=leader")


async def test_a_function_that_gives_a_contradiction_fails_at_once(colour, conninfo):
    async with colour.pool(
        lambda: f"{conninfo} {ATTRS}=standby", min_size=0, max_size=1, role="primary"
    ) as pool:
        error, _ = await borrow_error(pool)

        assert isinstance(error, ConnectFailed)
        assert f"contradicts {ATTRS}='standby'" in str(error)


@pytest.mark.parametrize(
    ("role", "dsn", "wrong"),
    [
        ("primary", "", [RETIRING, STANDBY]),
        ("primary", f"{ATTRS}=primary", [STANDBY]),
        ("standby", "", [PRIMARY, RETIRING]),
        ("any", "", []),
    ],
)
def test_which_server_is_misplaced(role, dsn, wrong):
    placement = Placement(role, dsn, None)
    everything = [PRIMARY, RETIRING, STANDBY, OLD]

    assert wrong == [told for told in everything if placement.is_misplaced(told)]


@pytest.mark.parametrize(
    ("role", "told", "pooled", "was_to"),
    [
        ("primary", PRIMARY, False, False),
        ("primary", PRIMARY, True, None),
        ("primary", RETIRING, False, True),
        ("primary", STANDBY, True, True),
        ("primary", OLD, False, None),
        ("standby", STANDBY, False, False),
        ("any", OLD, True, False),
    ],
)
def test_whether_a_write_was_to_be_taken(role, told, pooled, was_to):
    assert was_to is Placement(role, "", None).is_to_write(told, pooled)


@pytest.mark.parametrize("by", ["sql", "borrower"])
async def test_where_nobody_tells_the_borrowers_word_counts(
    colour, conninfo, monkeypatch, by
):
    monkeypatch.setattr(Placement, "is_to_write", lambda *_: None)
    async with colour.pool(conninfo, role="primary", min_size=1) as pool:
        mine = await lend(pool)

        async def write():
            async with entered(pool.connection()) as conn:
                if by == "sql":
                    await execute(conn, "set transaction read only")
                elif colour.asynchronous:
                    await conn.set_read_only(True)
                else:
                    conn.read_only = True
                await execute(conn, "create table never (n int)")

        error = await error_of(write())

        assert isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
        assert (by == "borrower") is (mine == await lend(pool))


async def test_one_purge_is_for_all_that_were_there(colour, conninfo, monkeypatch):
    """Who errs on a connection from before it does not have the new ones replaced."""
    monkeypatch.setattr(Placement, "is_to_write", lambda *_: None)
    async with colour.pool(conninfo, role="primary", min_size=1, max_size=4) as pool:

        async def write(meanwhile):
            async with entered(pool.connection()) as conn:
                await execute(conn, "set transaction read only")
                await meanwhile()
                await execute(conn, "create table never (n int)")

        new = 0

        async def another():
            nonlocal new
            await error_of(write(nothing))
            new = await lend(pool)

        async def nothing():
            pass

        await error_of(write(another))

        await eventually(lambda: pool.statistics().in_use == 0)
        assert new == await lend(pool)
