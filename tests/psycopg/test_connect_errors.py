"""The pool knows whether waiting can help, by what PostgreSQL says in English."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import psycopg.errors
import pytest

from edgepool.psycopg._connect_errors import ConnectErrors
from edgepool.psycopg._refusals import ENGLISH
from edgepool.testing import PostgresServer
from support.refused import (
    NO_DATABASE,
    ScriptedServer,
    failure,
    hopeless,
    is_permanent,
    probe,
    sqlstate_of,
    traces_refusals,
)

HBA = """
local all all peer
host all postgres  127.0.0.1/32 trust
host all scram     127.0.0.1/32 scram-sha-256
host all clear     127.0.0.1/32 password
host all ghost     127.0.0.1/32 trust
host all nologin   127.0.0.1/32 trust
host all lonely    127.0.0.1/32 trust
host all plain     127.0.0.1/32 trust
host all rejected  127.0.0.1/32 reject
"""


@pytest.fixture(scope="module")
def strict() -> Iterator[PostgresServer]:
    """A server that finds something wrong with everybody but postgres."""
    with PostgresServer(hba=HBA, settings={"password_encryption": "md5"}) as server:
        with psycopg.connect(server.conninfo, autocommit=True) as admin:
            for statement in (
                "CREATE ROLE clear LOGIN PASSWORD 'right'",
                "SET password_encryption = 'scram-sha-256'",
                "CREATE ROLE scram LOGIN PASSWORD 'right'",
                "CREATE ROLE nologin",
                "CREATE ROLE lonely LOGIN CONNECTION LIMIT 0",
                "CREATE ROLE plain LOGIN",
                "CREATE DATABASE private",
                "REVOKE CONNECT ON DATABASE private FROM public",
                "CREATE DATABASE crowded CONNECTION LIMIT 0",
                "CREATE DATABASE shut ALLOW_CONNECTIONS false",
                # What is left of a DROP DATABASE that was interrupted.
                "CREATE DATABASE broken",
                "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'broken'",
            ):
                admin.execute(statement)
        yield server


# What PostgreSQL says in English


REFUSALS = [
    pytest.param({"user": "scram", "password": "wrong"}, "28P01", id="scram"),
    pytest.param({"user": "clear", "password": "wrong"}, "28P01", id="password"),
    pytest.param({"user": "ghost"}, "28000", id="unknown role"),
    pytest.param({"user": "nologin"}, "28000", id="nologin"),
    pytest.param({"user": "stranger"}, "28000", id="no pg_hba.conf entry"),
    pytest.param({"user": "rejected"}, "28000", id="reject in pg_hba.conf"),
    pytest.param({"dbname": "nowhere"}, "3D000", id="unknown database"),
    pytest.param({"user": "lonely"}, "53300", id="limit of the role"),
    pytest.param(
        {"user": "plain", "dbname": "crowded"}, "53300", id="limit of the database"
    ),
    pytest.param({"user": "plain", "dbname": "private"}, "42501", id="no CONNECT"),
    pytest.param({"dbname": "shut"}, "55000", id="not accepting connections"),
    pytest.param({"dbname": "broken"}, "55000", id="invalid database"),
    pytest.param({"options": "-c colour=red"}, "42704", id="unknown parameter"),
]


@pytest.mark.parametrize(("parameters", "sqlstate"), REFUSALS)
def test_an_english_refusal_has_its_sqlstate(
    strict: PostgresServer, parameters: dict[str, str], sqlstate: str
) -> None:
    error = failure(strict.conninfo_for(**parameters))

    assert sqlstate == sqlstate_of(error)
    assert (sqlstate in {"28P01", "28000", "3D000", "42704"}) is is_permanent(error)


@traces_refusals
@pytest.mark.parametrize(("parameters", "sqlstate"), REFUSALS)
def test_a_probe_sees_the_same_sqlstate(
    strict: PostgresServer, parameters: dict[str, str], sqlstate: str
) -> None:
    assert sqlstate == probe(strict.conninfo_for(**parameters), 10)


def test_a_refused_peer_is_permanent(strict: PostgresServer) -> None:
    error = failure(
        strict.conninfo_for(host=str(strict.directory), user="somebody_else")
    )

    assert "Peer authentication failed" in str(error)
    assert "28000" == sqlstate_of(error)
    assert is_permanent(error) is True


@pytest.mark.parametrize("user", ["scram", "clear"])
def test_a_missing_password_is_permanent(
    strict: PostgresServer, user: str, tmp_path: Path
) -> None:
    error = failure(strict.conninfo_for(user=user, passfile=str(tmp_path / "none")))

    assert "no password supplied" in str(error)
    assert is_permanent(error) is True
    assert sqlstate_of(error) is None


def test_a_password_that_all_hosts_miss_is_permanent(
    strict: PostgresServer, tmp_path: Path
) -> None:
    host = f"{strict.host},{strict.host}"
    passfile = str(tmp_path / "none")
    error = failure(strict.conninfo_for(user="scram", host=host, passfile=passfile))

    assert 3 == str(error).count("no password supplied")
    assert is_permanent(error) is True


def test_libpq_need_not_say_in_english_that_it_has_no_password() -> None:
    error = psycopg.OperationalError(
        "connection failed: kein Passwort angegeben",
        pgconn=psycopg.errors.FinishedPGconn(needs_password=True),
    )

    assert is_permanent(error) is True


def test_a_wrong_password_from_a_file_is_permanent(
    strict: PostgresServer, tmp_path: Path
) -> None:
    # libpq adds a line of its own about the file.
    passfile = tmp_path / "pgpass"
    passfile.write_text("*:*:*:*:wrong\n")
    passfile.chmod(0o600)
    error = failure(strict.conninfo_for(user="scram", passfile=str(passfile)))

    assert "password retrieved from file" in str(error)
    assert is_permanent(error) is True


def test_too_many_clients_may_go_away(
    own_server: Callable[..., PostgresServer],
) -> None:
    server = own_server(
        settings={"max_connections": 4, "superuser_reserved_connections": 2}
    )
    with ExitStack() as crowd:

        def connect(user: str) -> psycopg.Connection:
            conninfo = server.conninfo_for(user=user)
            return crowd.enter_context(psycopg.connect(conninfo))

        admin = connect("postgres")
        admin.autocommit = True
        admin.execute("CREATE ROLE plain LOGIN")
        connect("plain")
        reserved = failure(server.conninfo_for(user="plain"))
        connect("postgres")
        connect("postgres")
        full = failure(server.conninfo)

    assert "remaining connection slots are reserved" in str(reserved)
    assert "sorry, too many clients already" in str(full)
    for error in (reserved, full):
        assert "53300" == sqlstate_of(error)
        assert is_permanent(error) is False


@pytest.mark.parametrize(
    ("sqlstate", "text", "permanent"),
    [
        *(("57P03", text, False) for text in ENGLISH["57P03"]),
        ("57P01", "terminating connection due to administrator command", False),
        ("28000", "connection requires a valid client certificate", True),
    ],
)
def test_a_refusal_that_is_hard_to_provoke_is_known_too(
    fake: ScriptedServer, sqlstate: str, text: str, permanent: bool
) -> None:
    fake.says((sqlstate, text))
    error = failure(fake.conninfo)

    assert sqlstate == sqlstate_of(error)
    assert permanent is is_permanent(error)


@pytest.mark.parametrize(
    ("text", "sqlstate", "kind"),
    [
        ("no more connections allowed (max_client_conn)", "53300", "BACK_OFF"),
        ("query_wait_timeout", "53300", "BACK_OFF"),
        ("Max client connections reached", "53300", "BACK_OFF"),
        ("password authentication failed", "28P01", "CREDENTIALS"),
        ("no such user: app", "28P01", "CREDENTIALS"),
        ("no such database: shop", "3D000", "FAIL_FAST"),
        ("unsupported startup parameter: options", "42704", "FAIL_FAST"),
        ("unsupported startup parameter in options: jit", "42704", "FAIL_FAST"),
        (
            "unsupported options startup parameter: only '-c config=val' and"
            " '--config=val' are allowed",
            *("42704", "FAIL_FAST"),
        ),
        ('database "shop" is disabled', None, "ORDINARY"),
    ],
)
def test_what_a_pooler_says_means_what_it_would_of_postgresql(
    fake: ScriptedServer, text: str, sqlstate: str | None, kind: str
) -> None:
    fake.says(("08P01", text))
    error = failure(fake.conninfo)

    assert sqlstate == sqlstate_of(error)
    assert kind == ConnectErrors().class_of(error, fake.conninfo, 0).name


def test_names_in_a_text_do_not_change_its_meaning(fake: ScriptedServer) -> None:
    fake.says(("3D000", 'database "a: FATAL:  b.* "c"" does not exist'))
    error = failure(fake.conninfo)

    assert "3D000" == sqlstate_of(error)
    assert is_permanent(error) is True


def test_a_text_that_goes_on_is_another_text(fake: ScriptedServer) -> None:
    fake.says(("XX000", 'database "shop" does not exist yet'))

    assert is_permanent(failure(fake.conninfo)) is None


def test_the_rest_of_a_refusal_does_not_change_its_meaning(
    fake: ScriptedServer,
) -> None:
    fake.says_raw(
        'SFATAL\0VFATAL\0C3D000\0Mdatabase "shop" does not exist\0'
        "DIt seems to have just been dropped or renamed.\0HAsk again:  later.\0\0"
    )
    error = failure(fake.conninfo)

    assert "It seems to have" in str(error)
    assert "Ask again" in str(error)
    assert is_permanent(error) is True


# With sslmode=prefer libpq tries with TLS and without, and reports both.
BOTH = (
    'connection failed: connection to server at "::1", port 5432 failed: FATAL:  {}\n'
    'connection to server at "::1", port 5432 failed: {}'
)
NO_ENTRY = (
    'FATAL:  no pg_hba.conf entry for host "::1", user "app", database "shop", '
    "no encryption"
)
NO_TLS = "server does not support SSL, but SSL was required"
TIMED_OUT = "Connection timed out\n\tIs the server running on that host?"


@pytest.mark.parametrize(
    ("with_tls", "without", "permanent", "sqlstate"),
    [
        ('password authentication failed for user "a"', NO_ENTRY, True, "28P01"),
        ("sorry, too many clients already", NO_ENTRY, False, "53300"),
        ('role "app" does not exist', TIMED_OUT, False, None),
        ("zu viele Verbindungen", NO_ENTRY, None, None),
        ("zu viele Verbindungen", TIMED_OUT, False, None),
        ('role "app" does not exist', NO_TLS, True, "28000"),
        ("sorry, too many clients already", NO_TLS, False, "53300"),
    ],
)
def test_with_tls_and_without_have_to_agree(
    with_tls: str, without: str, permanent: bool | None, sqlstate: str | None
) -> None:
    error = psycopg.OperationalError(BOTH.format(with_tls, without))

    assert permanent is is_permanent(error)
    assert sqlstate == sqlstate_of(error)


# What comes without a refusal


def test_a_refused_connection_is_worth_waiting_for(nobody: int) -> None:
    error = failure(f"host=127.0.0.1 port={nobody}")

    assert "refused" in str(error)
    assert is_permanent(error) is False
    assert sqlstate_of(error) is None


def test_a_missing_socket_is_worth_waiting_for(tmp_path: Path) -> None:
    assert is_permanent(failure(f"host={tmp_path}")) is False


def test_an_unknown_host_is_worth_waiting_for() -> None:
    assert is_permanent(failure("host=nowhere.invalid")) is False


def test_a_timeout_is_worth_waiting_for(fake: ScriptedServer) -> None:
    error = failure(f"{fake.conninfo} connect_timeout=2")

    assert isinstance(error, psycopg.errors.ConnectionTimeout)
    assert is_permanent(error) is False


def test_a_server_that_hangs_up_is_worth_waiting_for(fake: ScriptedServer) -> None:
    fake.hangs_up()
    error = failure(fake.conninfo)

    assert "closed the connection unexpectedly" in str(error)
    assert is_permanent(error) is False


@pytest.mark.parametrize("conninfo", ["nonsense=1", "host", "postgresql://h/?x=1"])
def test_an_invalid_connection_string_is_permanent(conninfo: str) -> None:
    assert is_permanent(failure(conninfo)) is True


@pytest.mark.parametrize(
    "error",
    [
        AssertionError(),
        AttributeError(),
        ImportError(),
        KeyError(),
        NameError(),
        NotImplementedError(),
        TypeError(),
        psycopg.DataError(),
        psycopg.InterfaceError(),
        psycopg.NotSupportedError(),
        psycopg.ProgrammingError(),
        psycopg.errors.InvalidPassword(),
        psycopg.errors.InvalidCatalogName(),
        psycopg.errors.InvalidAuthorizationSpecification(),
    ],
    ids=repr,
)
def test_a_bug_is_permanent(error: Exception) -> None:
    assert is_permanent(error) is True


@pytest.mark.parametrize(
    "error",
    [
        OSError(),
        TimeoutError(),
        json.JSONDecodeError("", "", 0),
        RuntimeError(),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        psycopg.OperationalError(),
        psycopg.OperationalError("HINT:  Look for the error elsewhere."),
        psycopg.InternalError(),
        psycopg.errors.CannotConnectNow(),
        psycopg.errors.TooManyConnections(),
        # A `configure` before the migration has run.
        psycopg.errors.UndefinedTable(),
    ],
    ids=repr,
)
def test_what_may_pass_is_worth_waiting_for(error: BaseException) -> None:
    assert is_permanent(error) is False


# Several hosts


def all_of(*servers: ScriptedServer | int) -> str:
    """Name all of them in one connection string."""
    ports = [s if isinstance(s, int) else s.port for s in servers]
    hosts = ",".join(["127.0.0.1"] * len(ports))
    return f"host={hosts} port={','.join(map(str, ports))} user=app dbname=shop"


def test_a_failure_of_all_hosts_is_permanent_if_each_one_is(
    start_fake: Callable[[], ScriptedServer],
) -> None:
    one, two = start_fake(), start_fake()
    one.says(("3D000", 'database "shop" does not exist'))
    two.says(("28P01", 'password authentication failed for user "app"'))
    error = failure(all_of(one, two))

    assert is_permanent(error) is True
    assert sqlstate_of(error) in {"3D000", "28P01"}


@pytest.mark.parametrize("order", [1, -1])
def test_one_host_that_is_down_is_worth_waiting_for(
    fake: ScriptedServer, nobody: int, order: int
) -> None:
    fake.says(("3D000", 'database "shop" does not exist'))
    servers: list[ScriptedServer | int] = [fake, nobody]
    error = failure(all_of(*servers[::order]))

    assert is_permanent(error) is False
    assert sqlstate_of(error) is None


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("is_up", [True, False])
def test_one_host_that_starts_up_is_worth_waiting_for(
    start_fake: Callable[[], ScriptedServer], nobody: int, order: int, is_up: bool
) -> None:
    one, two = start_fake(), start_fake()
    one.says(("3D000", 'database "shop" does not exist'))
    two.says(("57P03", "the database system is starting up"))
    servers: list[ScriptedServer | int] = [one if is_up else nobody, two]
    error = failure(all_of(*servers[::order]))

    assert is_permanent(error) is False
    assert "57P03" == sqlstate_of(error)


@traces_refusals
def test_only_the_host_with_the_unknown_text_is_asked(
    start_fake: Callable[[], ScriptedServer],
) -> None:
    one, two = start_fake(), start_fake()
    one.says(("3D000", 'database "shop" does not exist'))
    two.says(NO_DATABASE)
    conninfo = all_of(one, two)
    error = failure(conninfo)

    assert is_permanent(error) is None
    assert hopeless(ConnectErrors(), error, conninfo, 10) is True
    assert (1, 2) == (one.attempts, two.attempts)


@traces_refusals
def test_the_probe_goes_where_the_failure_was(
    fake: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also without asking the name server again, which would block the event loop.
    fake.says(NO_DATABASE)
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
    monkeypatch.setenv("PGPORT", str(fake.port))
    error = failure("user=app dbname=shop")
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT"):
        monkeypatch.delenv(name)

    assert hopeless(ConnectErrors(), error, "user=app dbname=shop", 10) is True


def test_hosts_without_port_or_address_are_told_apart() -> None:
    said = 'connection failed: FATAL:  database "shop" does not exist'
    text = (
        f"{said}\nMultiple connection attempts failed. All failures were:\n"
        "- host: '/run/a', port: None, hostaddr: None: {}\n"
        "- host: None, port: 5433, hostaddr: '::1': {}"
    )
    verdicts = [
        is_permanent(psycopg.OperationalError(text.format(first, second)))
        for first, second in [(said, said), (said, "refused"), ("refused", said)]
    ]

    assert [True, False, False] == verdicts


@pytest.mark.parametrize(
    ("host", "port", "text", "permanent"),
    [
        ("localhost", 5432, "Connection refused", True),
        ("localhost", 5433, "Connection refused", False),
        ("localhost", 5432, "FATAL:  the database system is starting up", False),
        ("db", 5432, "Connection refused", False),
    ],
)
def test_a_server_need_not_listen_on_both_addresses_of_localhost(
    host: str, port: int, text: str, permanent: bool
) -> None:
    said = 'connection failed: FATAL:  database "shop" does not exist'
    error = psycopg.OperationalError(
        f"{said}\nMultiple connection attempts failed. All failures were:\n"
        f"- host: '{host}', port: 5432, hostaddr: '127.0.0.1': {said}\n"
        f"- host: '{host}', port: {port}, hostaddr: '::1': connection failed: {text}"
    )

    assert permanent is is_permanent(error)


def test_a_list_of_failures_in_another_form_is_worth_waiting_for() -> None:
    error = psycopg.OperationalError(
        'connection failed: FATAL:  database "shop" does not exist\n'
        "Multiple connection attempts failed. All failures were:\n* 127.0.0.1: no"
    )

    assert is_permanent(error) is False
    assert sqlstate_of(error) is None
