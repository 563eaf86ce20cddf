"""What a failed attempt to connect means, first of all whether waiting can help.

Owns that verdict and what it takes to reach it: PostgreSQL's English texts, and what
was learned about other texts. It does not retry,
sleep or log, and nothing that leaves it holds a connection string.

psycopg has no SQLSTATE for a failure to connect, because libpq hands out nothing but
text, and the server translates the text (`lc_messages`). So an English text is looked
up. For another one, one more attempt is made with libpq's trace switched on, which is
where libpq does show the SQLSTATE. That attempt comes after the failed one and in its
place: the server never sees more sessions than the pool's `max_size`.

In doubt the verdict is that waiting may help: that costs a retry after a backoff. The
opposite mistake would turn a restart of the server into errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import psycopg
from psycopg.conninfo import make_conninfo

from .._core import PERMANENT, ErrorClass
from .._flows import PROGRAMMING_ERRORS
from ._error_classes import CLASSES
from ._refusals import Failure, english, failures_of, hint_on
from ._sqlstate_probe import (
    PERMANENT_SQLSTATES,
    UNTOLD,
    ask,
    deciding,
    wait,
    wait_async,
)

# psycopg's own, raised before there is a server to talk to: a connection string that
# cannot be parsed, a parameter of the wrong type.
MISUSE: Final = (
    psycopg.DataError,
    psycopg.InterfaceError,
    psycopg.NotSupportedError,
    psycopg.ProgrammingError,
)

# src/interfaces/libpq/fe-connect.c: a parameter whose value cannot be right. libpq
# finds out when it connects, so psycopg raises an OperationalError.
INVALID_PARAMETER: Final = re.compile(
    r"^(connection is bad: )?invalid (\w+ value|integer value|port number)\b"
)

# The one thing that libpq quotes of a connection string which is no secret.
UNKNOWN_OPTION: Final = re.compile(r'invalid connection option "[a-z_]{1,40}"')

# All from where libpq begins to quote a connection string. Two characters that it puts
# between quotes are its own: a missing "=", a missing "]".
QUOTATION: Final = re.compile(
    r'(?<!\bmissing )(?<!\bseparator )(?<!\bmatching )(?<!"[=\]])".*', re.DOTALL
)

# More attempts than this are not made to learn texts. PostgreSQL has about twenty of
# them: a server that gets here puts something new into each, a request's number say,
# and could be asked for ever. The limit also bounds a leak: psycopg opens a C `FILE`
# for each trace and does not close it (5 kB; the descriptor in it is ours).
MOST_PROBES: Final = 64

# From a text of the server to its SQLSTATE; None if it is not known.
Meaning = Callable[[str], "str | None"]


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

    def class_of(
        self, error: BaseException, conninfo: str, timeout: float
    ) -> ErrorClass:
        """Tell what a failure means; may make one more attempt to find out.

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
                answers = wait(ask(where, timeout), {})
            finally:
                self._learn(text, answers)
        return self._class_of(error)

    async def class_of_async(
        self, error: BaseException, conninfo: str, timeout: float
    ) -> ErrorClass:
        """Tell what a failure means; see `class_of`."""
        question = self._question(error, conninfo, timeout)
        if question is not None:
            text, where = question
            answers: Mapping[str, str] = {}
            try:
                answers = await wait_async(ask(where, timeout), {})
            finally:
                self._learn(text, answers)
        return self._class_of(error)

    def _class_of(self, error: BaseException) -> ErrorClass:
        kind = CLASSES.get(self.sqlstate_of(error) or "", ErrorClass.ORDINARY)
        if kind not in PERMANENT and self.is_permanent(error):
            return ErrorClass.FAIL_FAST
        return kind

    def blames_credentials(self, error: psycopg.Error) -> bool:
        """Tell whether a server, of several one, has not admitted what it was given."""
        return any(
            failure.no_password
            or any(
                CLASSES.get(self._meaning(text) or "") is ErrorClass.CREDENTIALS
                for text in failure.refusals
            )
            for failure in failures_of(error)
        )

    def explained(self, error: psycopg.Error, kind: ErrorClass) -> psycopg.Error:
        """Return the error as users are to see it: what was found out, no secrets."""
        shown = self.without_secrets(error)
        if hint := hint_on(error):
            shown = type(error)(f"{shown}\nHINT:  {hint}", pgconn=error.pgconn)
        shown.sqlstate = self.sqlstate_of(error)
        shown._edgepool = kind  # type: ignore[attr-defined]
        return shown

    @staticmethod
    def without_secrets(error: psycopg.Error) -> psycopg.Error:
        """Return an error whose text shows no part of the connection string.

        libpq quotes what it could not parse, and psycopg the host that it could not
        find; either may be the end of a password with a character in it that should
        have been escaped. What can be shown is what precedes the quotation.
        """
        text = str(error)
        if isinstance(error, psycopg.ProgrammingError) and error.pgconn is None:
            option = UNKNOWN_OPTION.fullmatch(text.strip())
            what = text.strip() if option else QUOTATION.sub("...", text).strip()
            shown = f"the connection string is invalid: {what}"
        else:
            shown = re.sub(r"host '[^']*@", "host '...@", text)
        return error if shown == text else type(error)(shown, pgconn=error.pgconn)

    def is_permanent(self, error: BaseException) -> bool | None:
        """Tell whether waiting is useless after this failure; makes no attempt.

        Args:
            error: What `connect` raised, or a callable of the user that it needed.

        Returns:
            True or False if that is known. None if only the server's SQLSTATE could
            tell: it refused, with a text that is not known so far.
        """
        return _judge(error, self._meaning)

    def sqlstate_of(self, error: BaseException) -> str | None:
        """Return the SQLSTATE, also of a text that was learned; makes no attempt.

        None if it is not known. Of several hosts that failed differently, one whose
        SQLSTATE is not permanent goes first; a permanent one is returned only if it
        holds for all.
        """
        return _decide(error, self._meaning)

    def _meaning(self, text: str) -> str | None:
        return english(text) or self._learned.get(text)

    def _question(
        self, error: BaseException, conninfo: str, timeout: float
    ) -> tuple[str, str] | None:
        # One text at most, for one attempt: the caller's time is bounded, and another
        # unknown text will come again if it matters.
        if timeout <= 0 or self._probes_left <= 0:
            return None
        if not isinstance(error, psycopg.Error):
            return None
        if self.is_permanent(error) is not None:
            return None
        for failure in failures_of(error):
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
                self._learned[text] = UNTOLD
                return text, where
        return None

    def _learn(self, text: str, answers: Mapping[str, str]) -> None:
        # What counts is the text the answer came with, not the one we asked for: since
        # that failure the server may have finished starting up and found the password
        # wrong. A text that was not answered may be asked again.
        self._learned.pop(text, None)
        self._learned.update(answers)


def _judge(error: BaseException, meaning: Meaning) -> bool | None:
    if not isinstance(error, psycopg.Error):
        return isinstance(error, PROGRAMMING_ERRORS)
    if error.sqlstate:
        return error.sqlstate in PERMANENT_SQLSTATES
    if isinstance(error, MISUSE) or INVALID_PARAMETER.search(str(error)):
        return True

    # One host that may come back is enough to wait for.
    verdicts = [_judge_one(failure, meaning) for failure in failures_of(error)]
    if not verdicts or False in verdicts:
        return False
    return None if None in verdicts else True


def _judge_one(failure: Failure, meaning: Meaning) -> bool | None:
    if failure.no_password:
        return True
    if failure.other or not (failure.refusals or failure.distrust):
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
    for failure in failures_of(error):
        states += [meaning(text) for text in failure.refusals]
        if failure.other or failure.no_password or not failure.refusals:
            states.append(None)
    return deciding(states)
