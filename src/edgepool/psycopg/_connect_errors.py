"""Whether waiting can help after a failed attempt to connect.

Owns that verdict and what it takes to reach it: the SQLSTATEs that are permanent,
PostgreSQL's English texts, and what was learned about other texts. It does not retry,
sleep or log, and nothing that leaves it holds a connection string.

psycopg has no SQLSTATE for a failure to connect, because libpq hands out nothing but
text, and the server translates the text (`lc_messages`). So an English text is looked
up. For another one, one more attempt is made with libpq's trace switched on, which is
where libpq does show the SQLSTATE. That attempt comes after the failed one and in its
place: the server never sees more sessions than the pool's `max_size`.

In doubt the verdict is that waiting may help: that costs a retry after a back-off. The
opposite mistake would turn a restart of the server into errors.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Mapping
from tempfile import TemporaryFile
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import ConnStatus, PGconn, PollingStatus, Trace
from psycopg.waiting import Wait, wait_conn, wait_conn_async

from .._flows import PROGRAMMING_ERRORS

if TYPE_CHECKING:
    from psycopg.abc import PQGenConn
    from psycopg.pq import abc

R = TypeVar("R")

PERMANENT_SQLSTATES: Final = frozenset(
    {
        "28000",  # invalid_authorization_specification: role, pg_hba.conf, peer, ...
        "28P01",  # invalid_password
        "3D000",  # invalid_catalog_name: unknown database
    }
)

# psycopg's own, raised before there is a server to talk to: a connection string that
# cannot be parsed, a parameter of the wrong type.
MISUSE: Final = (
    psycopg.DataError,
    psycopg.InterfaceError,
    psycopg.NotSupportedError,
    psycopg.ProgrammingError,
)

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
}

# src/interfaces/libpq/libpq-fe.h, PQnoPasswordSupplied. Never translated. The server
# asked for a password and there is none: it never got as far as refusing.
NO_PASSWORD: Final = "fe_sendauth: no password supplied"

# What psycopg writes between the last failure and the list of all of them, when there
# are several hosts or addresses (`Connection.connect`). Before 3.2.8 it raises the last
# failure, and that is judged as if it were the only one.
SEVERAL: Final = "Multiple connection attempts failed. All failures were:"

# More attempts than this are not made to learn texts. PostgreSQL has about twenty of
# them: a server that gets here puts something new into each, a request's number say,
# and could be asked for ever. The limit also bounds a leak: psycopg opens a C `FILE`
# for each trace and does not close it (5 kB; the descriptor in it is ours).
MOST_PROBES: Final = 64

# How often a wait looks up for a deadline and for Ctrl-C, in seconds. psycopg's figure.
GLANCE: Final = 0.1

_FLAGS: Final = Trace.SUPPRESS_TIMESTAMPS | Trace.REGRESS_MODE

# A text that was asked about without an answer. Not a permanent SQLSTATE.
_UNTOLD: Final = ""

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

# A refusal in the trace (fe-trace.c, pqTraceOutputNR): `B` is for the backend, `NN` for
# the length. PostgreSQL and PgBouncer send the code before the message. Nothing is
# escaped, so the rest of a message of several lines follows on lines of its own.
_TRACED: Final = re.compile(
    r'^B\tNN\tErrorResponse\t.*? C "([0-9A-Z]{5})".*? M "(.*)$', re.MULTILINE
)


def _pattern(texts: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(t).replace("%s", ".*") for t in texts))


_ENGLISH: Final = [(sqlstate, _pattern(texts)) for sqlstate, texts in ENGLISH.items()]

# From a text of the server to its SQLSTATE; None if it is not known.
Meaning = Callable[[str], "str | None"]


def is_permanent(error: BaseException) -> bool | None:
    """Tell whether waiting is useless after this failure to connect.

    Args:
        error: What `connect` raised, or a callable of the user that it needed.

    Returns:
        True or False if the error itself tells. None if only the server's SQLSTATE
        could tell: it refused, with a text that is not known here.
    """
    return _judge(error, _english)


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE behind a failure to connect, or None if it is not known.

    Of several hosts that failed differently, one whose SQLSTATE is not permanent goes
    first; a permanent one is returned only if it holds for all.
    """
    return _decide(error, _english)


class ConnectErrors:
    """Judges failures to connect, and remembers what the server's texts mean.

    Once a text was asked about, its meaning is known: a server that speaks another
    language costs one more attempt for each thing it says, not for each failure.
    Threads and tasks may share one; it waits for nobody.
    """

    __slots__ = ("_learned", "_probes_left")

    def __init__(self) -> None:
        self._learned: dict[str, str] = {}
        self._probes_left = MOST_PROBES

    def __repr__(self) -> str:
        """Tell how much was learned; the texts stay in, they name roles."""
        return f"<ConnectErrors {len(self._learned)} texts learned>"

    def permanent(self, error: BaseException, conninfo: str, timeout: float) -> bool:
        """Tell whether waiting is useless; may make one more attempt to find out.

        Never raises for its own reasons.

        Args:
            error: What the attempt raised.
            conninfo: All the attempt was made with, the password included.
            timeout: The most that one more attempt may take, in seconds; none is made
                if it is not positive.
        """
        question = self._question(error, conninfo, timeout)
        if question is not None:
            text, where = question
            answers: Mapping[str, str] = {}
            try:
                answers = _wait(_ask(where, timeout), {})
            finally:
                self._learn(text, answers)
        return _judge(error, self._meaning) or False

    async def permanent_async(
        self, error: BaseException, conninfo: str, timeout: float
    ) -> bool:
        """Tell whether waiting is useless; see `permanent`."""
        question = self._question(error, conninfo, timeout)
        if question is not None:
            text, where = question
            answers: Mapping[str, str] = {}
            try:
                answers = await _wait_async(_ask(where, timeout), {})
            finally:
                self._learn(text, answers)
        return _judge(error, self._meaning) or False

    def sqlstate_of(self, error: BaseException) -> str | None:
        """Return the SQLSTATE, also of a text that was learned; makes no attempt."""
        return _decide(error, self._meaning)

    def _meaning(self, text: str) -> str | None:
        return _english(text) or self._learned.get(text)

    def _question(
        self, error: BaseException, conninfo: str, timeout: float
    ) -> tuple[str, str] | None:
        # One text at most, for one attempt: the caller's time is bounded, and another
        # unknown text will come again if it matters.
        if timeout <= 0 or self._probes_left <= 0:
            return None
        if not isinstance(error, psycopg.Error):
            return None
        if _judge(error, self._meaning) is not None:
            return None
        for failure in _failures(error):
            for text in failure.refusals:
                if self._meaning(text) is not None:
                    continue
                try:
                    where = make_conninfo(conninfo, **failure.place)
                except psycopg.Error:
                    return None
                self._probes_left -= 1
                # From now on it is known not to be known: others who fail with the
                # same text meanwhile do not ask as well.
                self._learned[text] = _UNTOLD
                return text, where
        return None

    def _learn(self, text: str, answers: Mapping[str, str]) -> None:
        # What counts is the text the answer came with, not the one we asked for: since
        # that failure the server may have finished starting up and found the password
        # wrong. A text that was not answered may be asked again.
        self._learned.pop(text, None)
        self._learned.update(answers)


# One more attempt


def sqlstate_probe_gen(conninfo: str, timeout: float) -> PQGenConn[str | None]:
    """Connect once more, to see the SQLSTATE; like `psycopg.generators.connect`.

    Yields what to wait for. The caller has to come back now and then, with nothing
    ready, for the timeout to be noticed. Whatever happens, also when the generator is
    closed early, the connection is finished and the trace is gone.

    libpq goes through several hosts in its own way, which is not psycopg's: name one.

    Returns:
        The SQLSTATE the server refused with. None if it did not refuse (it is not
        there, does not answer in time, or let us in), and where libpq does not tell:
        it traces on Linux only, and refusals during authentication only since
        libpq 18.
    """
    answers = yield from _ask(conninfo, timeout)
    return _deciding(answers.values())


def probe(conninfo: str, timeout: float) -> str | None:
    """Run `sqlstate_probe_gen`; block for about `timeout` seconds at most."""
    return _wait(sqlstate_probe_gen(conninfo, timeout), None)


async def probe_async(conninfo: str, timeout: float) -> str | None:
    """Run `sqlstate_probe_gen`; suspend for about `timeout` seconds at most."""
    return await _wait_async(sqlstate_probe_gen(conninfo, timeout), None)


def _ask(conninfo: str, timeout: float) -> PQGenConn[Mapping[str, str]]:
    # Returns what the server said to this attempt, each text with its SQLSTATE.
    if sys.platform != "linux":
        return {}
    deadline = monotonic() + timeout
    # A file without a name, because libpq 18 traces a password that is sent in clear,
    # and the md5 answer (older: lengths only). REGRESS_MODE hides SCRAM's, as `BBBB`.
    with TemporaryFile(buffering=0) as file:
        pgconn = PGconn.connect_start(conninfo.encode())
        try:
            pgconn.trace(file.fileno())
            pgconn.set_trace_flags(_FLAGS)
            try:
                refused = yield from _connect(pgconn, deadline)
                said = pgconn.get_error_message() if refused else ""
            finally:
                # Flushes. What stayed in libpq's buffer could end up in whatever file
                # has this descriptor next.
                pgconn.untrace()
        finally:
            pgconn.finish()

        file.seek(0)
        trace = file.read().decode("utf-8", "replace")
    return _answers(said, trace)


def _connect(pgconn: abc.PGconn, deadline: float) -> PQGenConn[bool]:
    # Returns whether the attempt came to an end, and to a bad one.
    while pgconn.status != ConnStatus.BAD:
        match pgconn.connect_poll():
            case PollingStatus.READING:
                wait = Wait.R
            case PollingStatus.WRITING:
                wait = Wait.W
            case PollingStatus.OK:
                return False
            case _:
                return True
        ready = 0
        while not ready:
            ready = yield pgconn.socket, wait
            if monotonic() >= deadline:
                return False
    return True


def _answers(said: str, trace: str) -> Mapping[str, str]:
    # By the texts of `said`, which are read the way the failure's own were.
    traced = _TRACED.findall(trace)
    answers: dict[str, str] = {}
    for text in _read(said).refusals:
        codes = (c for c, m in traced if m == text or m.startswith(f'{text}"'))
        answers[text] = next(codes, _UNTOLD)
    return answers


# psycopg took a timeout here only in 3.3, so the generators watch the time themselves
# and every version wakes them up for it.


def _wait(generator: PQGenConn[R], nothing: R) -> R:
    try:
        return wait_conn(generator, interval=GLANCE)
    except (psycopg.Error, OSError):
        return nothing
    finally:
        generator.close()


async def _wait_async(generator: PQGenConn[R], nothing: R) -> R:
    try:
        return await wait_conn_async(generator, interval=GLANCE)
    except (psycopg.Error, OSError):
        return nothing
    finally:
        generator.close()


# What a failure says


class _Failure(NamedTuple):
    """What one attempt, to one address, came to."""

    # As parameters of libpq, as far as psycopg tells.
    place: Mapping[str, str] = {}
    # What the server said. More than one with sslmode=prefer: with and without TLS.
    refusals: tuple[str, ...] = ()
    # libpq had no password to send.
    no_password: bool = False
    # There is something in it that the server did not say.
    other: bool = False

    @property
    def is_local(self) -> bool:
        return self.place.get("host") == "localhost"


def _judge(error: BaseException, meaning: Meaning) -> bool | None:
    if not isinstance(error, psycopg.Error):
        return isinstance(error, PROGRAMMING_ERRORS)
    if error.sqlstate:
        return error.sqlstate in PERMANENT_SQLSTATES
    if isinstance(error, MISUSE):
        return True

    # One host that may come back is enough to wait for.
    verdicts = [_judge_one(failure, meaning) for failure in _failures(error)]
    if not verdicts or False in verdicts:
        return False
    return None if None in verdicts else True


def _judge_one(failure: _Failure, meaning: Meaning) -> bool | None:
    if failure.no_password:
        return True
    if failure.other or not failure.refusals:
        return False

    states = [meaning(text) for text in failure.refusals]
    if any(s is not None and s not in PERMANENT_SQLSTATES for s in states):
        return False
    return None if None in states else True


def _decide(error: BaseException, meaning: Meaning) -> str | None:
    if not isinstance(error, psycopg.Error):
        return None
    if error.sqlstate:
        return error.sqlstate

    states: list[str | None] = []
    for failure in _failures(error):
        states += [meaning(text) for text in failure.refusals]
        if failure.other or failure.no_password or not failure.refusals:
            states.append(None)
    return _deciding(states)


def _deciding(states: Collection[str | None]) -> str | None:
    lasting = [s for s in states if s not in PERMANENT_SQLSTATES]
    if not lasting:
        return next(iter(states), None)
    return next((s for s in lasting if s), None)


def _failures(error: psycopg.Error) -> list[_Failure]:
    first, several, joined = str(error).partition(SEVERAL)
    if not several:
        place, no_password = _libpq_facts(error)
        failure = _read(first)
        return [
            failure._replace(
                place=place, no_password=failure.no_password or no_password
            )
        ]

    # Nothing, then for each attempt: host, port, hostaddr, text.
    parts = iter(_ATTEMPT.split(joined)[1:])
    failures: list[_Failure] = []
    for host, port, hostaddr, text in zip(parts, parts, parts, parts, strict=True):
        place = {"host": host, "port": port, "hostaddr": hostaddr}
        place = {k: v.strip("'") for k, v in place.items() if v != "None"}
        failures.append(_read(text)._replace(place=place))
    return _without_idle_loopback(failures)


def _without_idle_loopback(failures: list[_Failure]) -> list[_Failure]:
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


def _read(text: str) -> _Failure:
    refusals: list[str] = []
    no_password = other = False
    for line in text.strip().split("\n"):
        if refusal := _REFUSAL.search(line):
            refusals.append(refusal[1])
        elif NO_PASSWORD in line:
            no_password = True
        elif not _CONTINUED.match(line):
            other = True
    return _Failure(refusals=tuple(refusals), no_password=no_password, other=other)


def _english(text: str) -> str | None:
    return next((s for s, pattern in _ENGLISH if pattern.fullmatch(text)), None)
