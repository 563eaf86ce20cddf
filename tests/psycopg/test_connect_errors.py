"""The pool knows whether waiting can help, whatever language the server speaks."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import psycopg.errors
import pytest

from edgepool._core import PERMANENT
from edgepool.psycopg import _sqlstate_probe
from edgepool.psycopg._connect_errors import MOST_PROBES, ConnectErrors
from edgepool.psycopg._refusals import ENGLISH
from edgepool.psycopg._sqlstate_probe import ask, deciding, wait, wait_async
from edgepool.testing import PostgresServer
from support import parity
from support.parity import run_blocking

T = TypeVar("T")

WRONG_PASSWORD = ("28P01", "Passwort-Authentifizierung für Benutzer »app« schlug fehl")
NO_DATABASE = ("3D000", "Datenbank »shop« existiert nicht")
NO_ROLE = ("28000", "Rolle »app« existiert nicht")
TOO_MANY = ("53300", "Verbindungslimit erreicht: tut mir leid, schon zu viele Clients")
STARTING_UP = ("57P03", "das Datenbanksystem startet")

# Elsewhere libpq traces nothing, so there is no second source to ask.
traces_refusals = pytest.mark.skipif(
    sys.platform != "linux", reason="libpq traces refusals on Linux only"
)


def is_permanent(error: BaseException) -> bool | None:
    """Judge by what is known from the start."""
    return ConnectErrors().is_permanent(error)


def sqlstate_of(error: BaseException) -> str | None:
    """Give what is known from the start."""
    return ConnectErrors().sqlstate_of(error)


def probe(conninfo: str, timeout: float) -> str | None:
    """Make one more attempt, and give the SQLSTATE that it has seen."""
    return deciding(wait(ask(conninfo, timeout), {}).values())


async def probe_async(conninfo: str, timeout: float) -> str | None:
    """Make one more attempt; see `probe`."""
    return deciding((await wait_async(ask(conninfo, timeout), {})).values())


class FakeServer:
    """Says to each attempt to connect what it was told to say, in any language."""

    def __init__(self) -> None:
        self.attempts = 0
        self.passwords: list[str] = []
        self.asks_for_password = False
        self.was_left = threading.Event()
        self._says: list[bytes | None] = [None]
        self._clients: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def conninfo(self) -> str:
        """What to connect with."""
        return f"host=127.0.0.1 port={self.port} user=app dbname=shop password=Zebra-7"

    def says(self, *refusals: tuple[str, str], severity: str = "FATAL") -> None:
        """Refuse with SQLSTATE and text: the first, the second, ... the last ones."""
        self._says = [
            _message(
                b"E",
                f"S{severity}\0VFATAL\0C{sqlstate}\0M{text}\0Fauth.c\0L1\0Rx\0\0",
            )
            for sqlstate, text in refusals
        ]

    def says_raw(self, fields: str) -> None:
        """Refuse with an ErrorResponse of these fields."""
        self._says = [_message(b"E", fields)]

    def says_nothing(self) -> None:
        """Take what comes and leave it unanswered, as at first."""
        self._says = [None]

    def hangs_up(self) -> None:
        """Take what comes and close the connection."""
        self._says = [b""]

    def close(self) -> None:
        """Cut everybody off."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as incoming, suppress(OSError):
            self._answer(client, incoming.read)

    def _answer(self, client: socket.socket, read: Callable[[int], bytes]) -> None:
        while header := read(4):
            body = read(int.from_bytes(header, "big") - 4)
            if body[:4] not in (SSL_REQUEST, GSS_REQUEST):
                break
            client.sendall(b"N")
        else:
            return

        self.attempts += 1
        answer = self._says[0]
        if len(self._says) > 1:
            self._says.pop(0)
        if answer is None:
            read(1)
            self.was_left.set()
            return
        if self.asks_for_password:
            client.sendall(_message(b"R", "\0\0\0\3"))
            header = read(5)
            self.passwords.append(read(int.from_bytes(header[1:], "big") - 4).decode())
        client.sendall(answer)


SSL_REQUEST = (80877103).to_bytes(4, "big")
GSS_REQUEST = (80877104).to_bytes(4, "big")


def _message(kind: bytes, body: str) -> bytes:
    content = body.encode()
    return kind + (len(content) + 4).to_bytes(4, "big") + content


@pytest.fixture
def start_fake() -> Iterator[Callable[[], FakeServer]]:
    with ExitStack() as servers:
        yield lambda: servers.enter_context(closing(FakeServer()))


@pytest.fixture
def fake(start_fake: Callable[[], FakeServer]) -> FakeServer:
    return start_fake()


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port where nobody listens, and nobody else will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


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


def failure(conninfo: str) -> psycopg.Error:
    """Fail to connect."""
    with pytest.raises(psycopg.Error) as caught:
        psycopg.connect(conninfo).close()
    return caught.value


def hopeless(errors: ConnectErrors, *attempt: Any) -> bool:
    """Tell whether waiting is useless after a failure."""
    return errors.class_of(*attempt) in PERMANENT


async def hopeless_async(errors: ConnectErrors, *attempt: Any) -> bool:
    return await errors.class_of_async(*attempt) in PERMANENT


def eventually(get: Callable[[], T], expected: T) -> None:
    """Wait for what another process or thread is about to do."""
    run_blocking(parity.eventually(lambda: get() == expected))


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
    fake: FakeServer, sqlstate: str, text: str, permanent: bool
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
    fake: FakeServer, text: str, sqlstate: str | None, kind: str
) -> None:
    fake.says(("08P01", text))
    error = failure(fake.conninfo)

    assert sqlstate == sqlstate_of(error)
    assert kind == ConnectErrors().class_of(error, fake.conninfo, 0).name


def test_names_in_a_text_do_not_change_its_meaning(fake: FakeServer) -> None:
    fake.says(("3D000", 'database "a: FATAL:  b.* "c"" does not exist'))
    error = failure(fake.conninfo)

    assert "3D000" == sqlstate_of(error)
    assert is_permanent(error) is True


def test_a_text_that_goes_on_is_another_text(fake: FakeServer) -> None:
    fake.says(("XX000", 'database "shop" does not exist yet'))

    assert is_permanent(failure(fake.conninfo)) is None


def test_the_rest_of_a_refusal_does_not_change_its_meaning(fake: FakeServer) -> None:
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
TIMED_OUT = "Connection timed out\n\tIs the server running on that host?"


@pytest.mark.parametrize(
    ("with_tls", "without", "permanent", "sqlstate"),
    [
        ('password authentication failed for user "a"', NO_ENTRY, True, "28P01"),
        ("sorry, too many clients already", NO_ENTRY, False, "53300"),
        ('role "app" does not exist', TIMED_OUT, False, None),
        ("zu viele Verbindungen", NO_ENTRY, None, None),
        ("zu viele Verbindungen", TIMED_OUT, False, None),
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


def test_a_timeout_is_worth_waiting_for(fake: FakeServer) -> None:
    error = failure(f"{fake.conninfo} connect_timeout=2")

    assert isinstance(error, psycopg.errors.ConnectionTimeout)
    assert is_permanent(error) is False


def test_a_server_that_hangs_up_is_worth_waiting_for(fake: FakeServer) -> None:
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


def all_of(*servers: FakeServer | int) -> str:
    """Name all of them in one connection string."""
    ports = [s if isinstance(s, int) else s.port for s in servers]
    hosts = ",".join(["127.0.0.1"] * len(ports))
    return f"host={hosts} port={','.join(map(str, ports))} user=app dbname=shop"


def test_a_failure_of_all_hosts_is_permanent_if_each_one_is(
    start_fake: Callable[[], FakeServer],
) -> None:
    one, two = start_fake(), start_fake()
    one.says(("3D000", 'database "shop" does not exist'))
    two.says(("28P01", 'password authentication failed for user "app"'))
    error = failure(all_of(one, two))

    assert is_permanent(error) is True
    assert sqlstate_of(error) in {"3D000", "28P01"}


@pytest.mark.parametrize("order", [1, -1])
def test_one_host_that_is_down_is_worth_waiting_for(
    fake: FakeServer, nobody: int, order: int
) -> None:
    fake.says(("3D000", 'database "shop" does not exist'))
    servers: list[FakeServer | int] = [fake, nobody]
    error = failure(all_of(*servers[::order]))

    assert is_permanent(error) is False
    assert sqlstate_of(error) is None


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("is_up", [True, False])
def test_one_host_that_starts_up_is_worth_waiting_for(
    start_fake: Callable[[], FakeServer], nobody: int, order: int, is_up: bool
) -> None:
    one, two = start_fake(), start_fake()
    one.says(("3D000", 'database "shop" does not exist'))
    two.says(("57P03", "the database system is starting up"))
    servers: list[FakeServer | int] = [one if is_up else nobody, two]
    error = failure(all_of(*servers[::order]))

    assert is_permanent(error) is False
    assert "57P03" == sqlstate_of(error)


@traces_refusals
def test_only_the_host_with_the_unknown_text_is_asked(
    start_fake: Callable[[], FakeServer],
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
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
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
    fake: FakeServer, refusal: tuple[str, str], permanent: bool
) -> None:
    fake.says(refusal)
    error = failure(fake.conninfo)

    assert refusal[1] in str(error)
    assert is_permanent(error) is None
    assert sqlstate_of(error) is None


@traces_refusals
@GERMAN
def test_an_unknown_text_is_understood_by_asking_again(
    fake: FakeServer, refusal: tuple[str, str], permanent: bool
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
    fake: FakeServer, refusal: tuple[str, str], permanent: bool
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
    fake: FakeServer, severity: str
) -> None:
    fake.says(("28P01", "пользователь не прошёл проверку"), severity=severity)
    error = failure(fake.conninfo)

    assert hopeless(ConnectErrors(), error, fake.conninfo, 10) is True


@traces_refusals
def test_an_answer_of_several_lines_is_understood(fake: FakeServer) -> None:
    fake.says(("28P01", "falsches Passwort\nund noch eine Zeile"))

    assert "28P01" == probe(fake.conninfo, 10)


@traces_refusals
def test_a_text_is_asked_about_once(fake: FakeServer) -> None:
    errors = ConnectErrors()
    verdicts: list[bool] = []
    for refusal in [WRONG_PASSWORD, TOO_MANY] * 3:
        fake.says(refusal)
        verdicts.append(hopeless(errors, failure(fake.conninfo), fake.conninfo, 10))

    assert [True, False] * 3 == verdicts
    assert 6 + 2 == fake.attempts


def test_a_text_without_a_sqlstate_is_asked_about_once(fake: FakeServer) -> None:
    # What every text is to an older libpq.
    fake.says_raw("SFATAL\0Mnein\0\0")
    errors = ConnectErrors()
    for _ in range(3):
        assert hopeless(errors, failure(fake.conninfo), fake.conninfo, 10) is False

    assert 3 + 1 == fake.attempts


def test_what_is_known_is_not_asked_about(fake: FakeServer) -> None:
    fake.says(("28P01", 'password authentication failed for user "app"'))
    errors = ConnectErrors()

    assert hopeless(errors, failure(fake.conninfo), fake.conninfo, 10) is True
    assert hopeless(errors, TypeError(), fake.conninfo, 10) is True
    assert hopeless(errors, OSError(), fake.conninfo, 10) is False
    assert 1 == fake.attempts


@traces_refusals
def test_an_answer_counts_for_its_own_text_only(fake: FakeServer) -> None:
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
def test_who_fails_alike_meanwhile_does_not_ask_as_well(fake: FakeServer) -> None:
    fake.says(WRONG_PASSWORD, WRONG_PASSWORD, WRONG_PASSWORD)
    errors = ConnectErrors()
    first, second = failure(fake.conninfo), failure(fake.conninfo)
    fake.says_nothing()
    verdicts: list[bool] = []
    asking = threading.Thread(
        target=lambda: verdicts.append(hopeless(errors, first, fake.conninfo, 0.5))
    )
    asking.start()
    eventually(lambda: fake.attempts, 3)

    assert hopeless(errors, second, fake.conninfo, 10) is False
    assert 3 == fake.attempts

    asking.join()
    assert [False] == verdicts
    fake.says(WRONG_PASSWORD)
    assert hopeless(errors, second, fake.conninfo, 10) is True


def test_a_server_that_never_repeats_itself_is_not_asked_for_ever(
    fake: FakeServer,
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
    eventually(sessions, 0)


async def test_a_probe_that_gets_in_sees_nothing_in_asyncio(conninfo: str) -> None:
    assert await probe_async(conninfo, 10) is None


@pytest.mark.parametrize("conninfo", ["nonsense=1", "host=nowhere.invalid"])
async def test_a_probe_that_cannot_be_made_sees_nothing(conninfo: str) -> None:
    assert probe(conninfo, 10) is None
    assert await probe_async(conninfo, 10) is None


def test_a_probe_of_nobody_sees_nothing(nobody: int) -> None:
    assert probe(f"host=127.0.0.1 port={nobody}", 10) is None


def test_a_probe_ends_in_time(fake: FakeServer) -> None:
    started = time.monotonic()

    assert probe(fake.conninfo, 0.3) is None
    assert 0.25 < time.monotonic() - started < 2
    assert fake.was_left.wait(10)


async def test_a_probe_ends_in_time_in_asyncio(fake: FakeServer) -> None:
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


def test_without_time_there_is_no_probe(fake: FakeServer, libpq: Libpq) -> None:
    fake.says(WRONG_PASSWORD)
    error = failure(fake.conninfo)

    assert hopeless(ConnectErrors(), error, fake.conninfo, 0) is False
    assert [] == libpq.made


async def test_a_cancelled_probe_leaves_and_may_be_repeated(fake: FakeServer) -> None:
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
    fake: FakeServer, libpq: Libpq, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.says(WRONG_PASSWORD)
    error = failure(fake.conninfo)
    monkeypatch.setattr(sys, "platform", "darwin")

    assert hopeless(ConnectErrors(), error, fake.conninfo, 10) is False
    assert probe(fake.conninfo, 10) is None
    assert [] == libpq.made


def test_without_a_place_for_files_the_verdict_is_to_wait(
    fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.says(WRONG_PASSWORD)
    error = failure(fake.conninfo)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))

    assert hopeless(ConnectErrors(), error, fake.conninfo, 10) is False


def test_an_attempt_is_finished_at_once(
    fake: FakeServer, conninfo: str, libpq: Libpq
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
    fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    fake: FakeServer,
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
