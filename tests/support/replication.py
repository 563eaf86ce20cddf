"""A real primary with its standby: promoted, and made to take no writes."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import psycopg

from edgepool.testing import PostgresServer
from support.parity import poll_until

HBA = """
    local all all trust
    host all all 127.0.0.1/32 trust
    host replication all 127.0.0.1/32 trust
"""


class Pair:
    """Two servers: what is written to `primary` is soon to be read in `standby`."""

    def __init__(self, primary, standby):
        self.primary = primary
        self.standby = standby

    def conninfo(self, **parameters):
        """Lead to both, the one that was the primary first."""
        both = (self.primary, self.standby)
        ports = ",".join(str(server.port) for server in both)
        host = ",".join(server.host for server in both)
        return self.primary.conninfo_for(host=host, port=ports, **parameters)

    def hand_over(self):
        """Have the primary take no more writes, as before a planned promotion."""
        execute(self.primary, "alter system set default_transaction_read_only = on")
        execute(self.primary, "select pg_reload_conf()")

    def promote(self):
        """Make a primary of the standby; what the other one has written is there."""
        if self.primary.is_running:
            self._catch_up()
        assert execute(self.standby, "select pg_promote(true, 60)") == [(True,)]

    def _catch_up(self):
        ((goal,),) = execute(self.primary, "select pg_current_wal_lsn()")
        query = f"select pg_last_wal_replay_lsn() >= '{goal}'"
        poll_until(
            lambda: execute(self.standby, query) == [(True,)],
            otherwise="the standby does not catch up",
        )


def execute(server, query):
    """Run a statement as a superuser, on a connection of its own; give what it gives.

    Also on a server that takes no writes, for a session may say otherwise.
    """
    conninfo = server.conninfo_for(options="-c default_transaction_read_only=off")
    with psycopg.connect(conninfo, autocommit=True) as conn:
        cursor = conn.execute(query)
        return cursor.fetchall() if cursor.description else []


def sessions(server, name):
    """Count the sessions of an application_name."""
    query = f"select count(*) from pg_stat_activity where application_name = '{name}'"
    ((count,),) = execute(server, query)
    return count


@contextmanager
def pair(*statements):
    """Start a primary, run statements on it, and start a standby of it."""
    with PostgresServer(hba=HBA) as primary, PostgresServer() as standby:
        for server in (primary, standby):
            server.stop()
        _copy(primary.directory / "data", standby.directory / "data")
        standby.settings["primary_conninfo"] = primary.conninfo_for()
        for server in (primary, standby):
            server.start()
        for statement in statements:
            execute(primary, statement)
        made = Pair(primary, standby)
        made._catch_up()
        yield made


def _copy(source, target):
    owner = target.stat()
    shutil.rmtree(target)
    shutil.copytree(source, target, symlinks=True)
    (target / "standby.signal").touch()
    for path in (target, *target.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)
