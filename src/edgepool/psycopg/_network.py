"""Deadlines for a network that has fallen silent, where the user has set none.

Without them a lost peer is noticed after two hours idle, after 15 minutes with data
under way, and after 130 s in mid-connect: these are the defaults of Linux and psycopg.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

# All are libpq's, for the client's end only: the server, and a pooler before it, sees
# none of them. Time in seconds, but for the last.
#
# A server answers within a second, also when it is loaded and far away. Ten leave time
# for a lost packet or three (the kernel repeats itself after 1, 3 and 7 s), and are a
# third of the default timeout of a borrow.
CONNECT: Final[Mapping[str, int]] = {"connect_timeout": 10}
# A peer that is gone is found after 30 + 3 * 10 s at the latest. Firewalls and load
# balancers forget what was silent for some minutes (AWS 350 s, Azure 240 s).
# What was sent must be acknowledged within 30 s. That is the other machine's kernel,
# not the server: a query may take as long as it likes.
TCP: Final[Mapping[str, int]] = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


def network_defaults(conninfo: str, kwargs: Mapping[str, Any]) -> dict[str, int]:
    """Return the arguments to add to a connect: what nothing else determines.

    Not what the connection string or an argument says, nor libpq's environment. Nothing
    if a service is named there: only libpq knows where its file is.
    """
    try:
        given: dict[str, Any] = conninfo_to_dict(conninfo)
    except psycopg.Error:
        return {}  # the connect will say so
    given.update((k, v) for k, v in kwargs.items() if v is not None)
    if "service" in given:
        return {}
    # Compiled in, from the environment, and from the service that PGSERVICE names.
    for option in Conninfo.get_defaults():
        if option.val is not None:
            given.setdefault(option.keyword.decode(), option.val.decode())
    wanted = {**CONNECT, **TCP} if _over_tcp(given) else CONNECT
    return {name: value for name, value in wanted.items() if name not in given}


def _over_tcp(given: Mapping[str, Any]) -> bool:
    if given.get("hostaddr"):
        return True
    hosts = str(given.get("host", "")).split(",")
    return any(host and host[0] not in "/@" for host in hosts)
