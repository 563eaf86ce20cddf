"""What the pool adds to a connect for the network's sake, and what it leaves alone."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from edgepool.psycopg._network import CONNECT, TCP, network_defaults
from support.parity import borrowed

ALL = {**CONNECT, **TCP}
VARIABLES = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGCONNECT_TIMEOUT")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("conninfo", "kwargs"),
    [
        ("host=db.example dbname=app", {}),
        ("postgresql://me:hush@db.example/app", {}),
        ("", {"host": "db.example"}),
        ("hostaddr=192.0.2.1", {}),
        ("host=/var/run,db.example", {}),
    ],
)
def test_a_connect_by_tcp_gets_all_deadlines(conninfo, kwargs):
    assert network_defaults(conninfo, kwargs) == ALL


@pytest.mark.parametrize("conninfo", ["", "host=/var/run", "host=@abstract"])
def test_a_connect_by_a_unix_socket_gets_a_deadline_for_the_connect(conninfo):
    assert network_defaults(conninfo, {}) == CONNECT


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", ["0", "77"])
def test_what_the_user_says_is_left_alone(name, value):
    others = {key: value for key, value in ALL.items() if key != name}
    uri = f"postgresql://db.example/app?{name}={value}"

    assert network_defaults(uri, {}) == others
    assert network_defaults(f"host=db.example {name}={value}", {}) == others
    assert network_defaults("host=db.example", {name: int(value)}) == others


def test_the_environment_is_left_alone(monkeypatch):
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "3")

    assert network_defaults("host=db.example", {}) == TCP


def test_the_host_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("PGHOST", "db.example")

    assert network_defaults("dbname=app", {}) == ALL


def test_a_service_of_the_environment_is_left_alone(monkeypatch, tmp_path):
    file = tmp_path / "services"
    file.write_text("[app]\nhost=db.example\nconnect_timeout=3\nkeepalives_idle=5\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    monkeypatch.setenv("PGSERVICE", "app")

    added = network_defaults("dbname=app", {})

    assert added == {k: ALL[k] for k in TCP if k != "keepalives_idle"}


@pytest.mark.parametrize(
    ("conninfo", "kwargs"), [("service=app", {}), ("", {"service": "app"})]
)
def test_a_service_of_the_connection_string_is_left_alone(conninfo, kwargs):
    assert network_defaults(conninfo, kwargs) == {}


def test_an_invalid_connection_string_is_for_the_connect_to_refuse():
    assert network_defaults("no such thing", {}) == {}


def test_nothing_is_added_that_a_server_or_a_pooler_would_see():
    assert not {"options", "max_protocol_version"} & set(ALL)


async def test_the_connection_has_them(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool, borrowed(pool, 1) as (conn,):
        has = conn.info.get_parameters()

        assert {name: str(value) for name, value in ALL.items()}.items() <= has.items()
        assert pool.conninfo == conninfo
        assert pool.kwargs is None


async def test_the_connection_has_what_the_user_says(colour, conninfo):
    where = conninfo + " connect_timeout=7"
    kwargs = {"tcp_user_timeout": 5000, "keepalives_idle": 11}
    async with (
        colour.pool(where, min_size=1, kwargs=kwargs) as pool,
        borrowed(pool, 1) as (conn,),
    ):
        has = conn.info.get_parameters()

        assert has["connect_timeout"] == "7"
        assert has["tcp_user_timeout"] == "5000"
        assert has["keepalives_idle"] == "11"
        assert has["keepalives_count"] == str(TCP["keepalives_count"])
        assert conninfo_to_dict(pool.conninfo)["connect_timeout"] == "7"
        assert pool.kwargs == kwargs
