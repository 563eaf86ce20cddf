"""What a failure to connect says: who refused, with which text, and what it means.

psycopg has no SQLSTATE for a failure to connect, because libpq hands out nothing but
text. Owns PostgreSQL's English texts, and how libpq's and psycopg's texts are taken
apart; decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import psycopg

# What PostgreSQL says when it refuses a session, by SQLSTATE: as it stands in its
# source (15 and 16 were compared), with `%s` for anything. A text that is missing here
# costs one more attempt.
ENGLISH: Final[Mapping[str, tuple[str, ...]]] = {
    "28P01": (
        # src/backend/libpq/auth.c, auth_failed()
        'password authentication failed for user "%s"',
    ),
    "28000": (
        # src/backend/libpq/auth.c, auth_failed(): Peer, Ident, LDAP, "trust", ...
        '%s authentication failed for user "%s"',
        # src/backend/libpq/auth.c, ClientAuthentication()
        "no pg_hba.conf entry for %s",
        "pg_hba.conf rejects %s",
        "connection requires a valid client certificate",
        # src/backend/utils/init/miscinit.c, InitializeSessionUserId()
        'role "%s" does not exist',
        'role "%s" is not permitted to log in',
    ),
    "3D000": (
        # src/backend/utils/init/postinit.c, InitPostgres()
        'database "%s" does not exist',
    ),
    "53300": (
        # src/backend/storage/lmgr/proc.c, InitProcess(), and
        # src/backend/tcop/backend_startup.c (postmaster.c until 16)
        "sorry, too many clients already",
        # src/backend/utils/init/postinit.c, InitPostgres()
        "remaining connection slots are reserved for %s",
        # src/backend/utils/init/postinit.c, CheckMyDatabase()
        'too many connections for database "%s"',
        # src/backend/utils/init/miscinit.c, InitializeSessionUserId()
        'too many connections for role "%s"',
    ),
    "57P03": (
        # src/backend/tcop/backend_startup.c (postmaster.c until 16)
        "the database system is starting up",
        "the database system is shutting down",
        "the database system is in recovery mode",
        "the database system is not accepting connections",
        "the database system is not yet accepting connections",
    ),
    "57P01": (
        # src/backend/tcop/postgres.c, ProcessInterrupts()
        "terminating connection due to administrator command",
    ),
    "55000": (
        # src/backend/utils/init/postinit.c, CheckMyDatabase() and InitPostgres()
        'database "%s" is not currently accepting connections',
        'cannot connect to invalid database "%s"',
    ),
    "42501": (
        # src/backend/utils/init/postinit.c, CheckMyDatabase()
        'permission denied for database "%s"',
    ),
    "42704": (
        # src/backend/utils/misc/guc.c, find_option()
        'unrecognized configuration parameter "%s"',
    ),
}

# What poolers say in PostgreSQL's place, by the SQLSTATE that it has for the same.
# Theirs says nothing: PgBouncer 1.18 has 08P01 for all of it.
POOLERS: Final[Mapping[str, tuple[str, ...]]] = {
    "28P01": (
        # PgBouncer
        "password authentication failed",
        "SASL authentication failed",
        "no such user",
        "no such user: %s",
    ),
    "28000": (
        # PgBouncer: client_tls_sslmode, and auth_hba_file
        "SSL required",
        "login rejected",
    ),
    "3D000": (
        # PgBouncer
        "no such database",
        "no such database: %s",
    ),
    "42704": (
        # PgBouncer
        "unsupported startup parameter: %s",
        "unsupported startup parameter in options: %s",
        "unsupported options startup parameter: %s",
    ),
    "53300": (
        # PgBouncer: max_client_conn and its siblings; no connection in time
        "no more connections allowed%s",
        "query_wait_timeout",
        # Supavisor
        "Max client connections reached",
        "MaxClientsInSessionMode: %s",
    ),
}

# What to do where a pooler does not say it, by the same SQLSTATE.
HINTS: Final[Mapping[str, str]] = {
    "42704": "Leave the parameter out, or name it in PgBouncer's"
    " ignore_startup_parameters: then it has no effect.",
}

# src/interfaces/libpq/libpq-fe.h, PQnoPasswordSupplied. Never translated. The server
# asked for a password and there is none: it never got as far as refusing.
NO_PASSWORD: Final = "fe_sendauth: no password supplied"

# What libpq says when the server is not what it was told to insist on (fe-connect.c,
# fe-secure-openssl.c, fe-secure-common.c, fe-auth.c). In English where libpq has no
# translations, as psycopg's binary package; a text that is missing costs a wait.
DISTRUST: Final = re.compile(
    "server does not support SSL, but SSL was required"
    "|SSL error: certificate verify failed"
    '|root certificate file ".*" does not exist'
    "|Either provide the file, .* to disable server certificate verification"
    '|server certificate for ".*" .*does not match host name'
    "|channel binding required, but "
    '|authentication method requirement ".*" failed'
)

# What psycopg writes between the last failure and the list of all of them, when there
# are several hosts or addresses (`Connection.connect`). Before 3.2.8 it raises the last
# failure, and that is judged as if it were the only one.
SEVERAL: Final = "Multiple connection attempts failed. All failures were:"

# "connection to server at "::1", port 5432 failed: FATAL:  what it said". Whatever the
# language, libpq puts a colon and *two* spaces after the server's severity
# (fe-protocol3.c, pqBuildErrorMessage3), and its own prefix before it (since libpq 14).
_REFUSAL: Final = re.compile(r": [^\s:][^:]*:  (.+)")

# A line that goes with the one above it: libpq's own hint, the server's DETAIL or HINT,
# and where a wrong password came from (fe-connect.c, pgpassfileWarning).
_CONTINUED: Final = re.compile(r'\s|[^\s:][^:]*:  |password retrieved from file "')

# A head in psycopg's list; the values are `repr()` of what it tried.
_ATTEMPT: Final = re.compile(
    r"^- host: (None|'[^'\n]*'), port: (None|\d+|'[^'\n]*'),"
    r" hostaddr: (None|'[^'\n]*'): ",
    re.MULTILINE,
)


def _pattern(texts: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(t).replace("%s", ".*") for t in texts))


_POSTGRES: Final = [(sqlstate, _pattern(texts)) for sqlstate, texts in ENGLISH.items()]
_POOLERS: Final = [(sqlstate, _pattern(texts)) for sqlstate, texts in POOLERS.items()]


class Failure(NamedTuple):
    """What one attempt, to one address, came to."""

    # As parameters of libpq, as far as psycopg tells.
    place: Mapping[str, str] = {}
    # What the server said. More than one with sslmode=prefer: with and without TLS.
    refusals: tuple[str, ...] = ()
    # libpq had no password to send.
    no_password: bool = False
    # libpq goes no further with a server like this.
    distrust: bool = False
    # There is something in it that the server did not say.
    other: bool = False

    @property
    def is_local(self) -> bool:
        return self.place.get("host") == "localhost"


def failures_of(error: psycopg.Error) -> list[Failure]:
    first, several, joined = str(error).partition(SEVERAL)
    if not several:
        place, no_password = _libpq_facts(error)
        failure = read(first)
        return [
            failure._replace(
                place=place, no_password=failure.no_password or no_password
            )
        ]

    # Nothing, then for each attempt: host, port, hostaddr, text.
    parts = iter(_ATTEMPT.split(joined)[1:])
    failures: list[Failure] = []
    for host, port, hostaddr, text in zip(parts, parts, parts, parts, strict=True):
        place = {"host": host, "port": port, "hostaddr": hostaddr}
        place = {k: v.strip("'") for k, v in place.items() if v != "None"}
        failures.append(read(text)._replace(place=place))
    return _without_idle_loopback(failures)


def _without_idle_loopback(failures: list[Failure]) -> list[Failure]:
    # `localhost` is two addresses of one machine, and many a server listens on one of
    # them. Where that one answers, nothing is to be expected of the other.
    ports = [f.place.get("port") for f in failures if f.is_local and not f.other]
    return [
        f
        for f in failures
        if not (f.is_local and f.other and f.place.get("port") in ports)
    ]


def _libpq_facts(error: psycopg.Error) -> tuple[Mapping[str, str], bool]:
    # psycopg keeps what libpq knew of a failed connection (`FinishedPGconn`): where it
    # was, resolved, so that asking again needs no DNS; and whether a password was
    # missing, which libpq's header prefers to its text. There is nothing of the
    # server's answer in it but the text.
    pgconn = error.pgconn
    if pgconn is None:
        return {}, False
    try:
        place = {
            "host": pgconn.host,
            "port": pgconn.port,
            "hostaddr": pgconn.hostaddr,
        }
        no_password = pgconn.needs_password
    except psycopg.Error:
        return {}, False
    return {k: v.decode() for k, v in place.items() if v}, no_password


def read(text: str) -> Failure:
    refusals: list[str] = []
    no_password = distrust = other = False
    for line in text.strip().split("\n"):
        if refusal := _REFUSAL.search(line):
            refusals.append(refusal[1])
        elif NO_PASSWORD in line:
            no_password = True
        elif DISTRUST.search(line):
            distrust = True
        elif not _CONTINUED.match(line):
            other = True
    return Failure(
        refusals=tuple(refusals),
        no_password=no_password,
        distrust=distrust,
        other=other,
    )


def english(text: str) -> str | None:
    found = (s for s, pattern in _POSTGRES if pattern.fullmatch(text))
    return next(found, None) or pooler_says(text)


def pooler_says(text: str) -> str | None:
    return next((s for s, pattern in _POOLERS if pattern.fullmatch(text)), None)


def hint_on(error: psycopg.Error) -> str:
    texts = [text for failure in failures_of(error) for text in failure.refusals]
    hints = (HINTS.get(pooler_says(text) or "") for text in texts)
    return next(filter(None, hints), "")
