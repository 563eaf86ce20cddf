"""What needs a session of its own gets one: past the pool, and past a pooler."""

from __future__ import annotations

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import OperationalError, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import setup_databases, teardown_databases

from edgepool.django import direct
from support.pg import hung_up

NOWHERE = 1  # a port at which nobody listens
# Django would have a default database first.
ALONE = {"DEPENDENCIES": []}

# Of the database that is the direct way, if it has an alias.
ENGINES = {"alias": "edgepool.django", "stock": "django.db.backends.postgresql"}
MANY = "select generate_series(1, 5000)"


def is_direct(alias):
    """Tell whether the server's process is the one that libpq was told of."""
    with connections[alias].cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        (pid,) = cursor.fetchone()
    return pid == connections[alias].connection.info.backend_pid


def leads_nowhere(alias):
    """Tell whether the pool cannot connect."""
    connections[alias].pool.timeout = 0.01
    with pytest.raises(OperationalError):
        is_direct(alias)
    return True


@pytest.fixture
def ways(server, bouncer):
    """A pooler, and the server behind it: two connection strings."""
    pooler = bouncer("transaction")
    return pooler.conninfo_for(application_name="pooled"), server.conninfo


@pytest.fixture(params=["dsn", "url", "dictionary", "Django's", "alias", "stock"])
def written(request, server, database):
    """The server's address in all forms."""
    if request.param in ENGINES:
        return database(
            server.conninfo, sslmode="disable", ENGINE=ENGINES[request.param]
        )
    return {
        "dsn": server.conninfo,
        "url": server.url,
        "dictionary": {"host": server.host, "port": server.port},
        "Django's": {"HOST": server.host, "PORT": str(server.port)},
    }[request.param]


def test_the_direct_address_is_used_in_a_block_only(database, written):
    alias = database(PORT=NOWHERE, direct=written)
    with direct(alias) as connection:
        assert connection is connections[alias]
        assert is_direct(alias)

        connection.close()

        assert is_direct(alias)

    assert leads_nowhere(alias)


def test_a_direct_connection_is_past_the_pool_and_closed_with_the_block(
    database, sessions
):
    alias = database(pool={"max_size": 1, "timeout": 5})
    with direct(alias), connections[alias].cursor() as cursor:
        cursor.execute("select 1")
        (pid,) = sessions.pids

    hung_up(pid)

    assert 0 == connections[alias].pool.statistics().requests


def test_what_is_open_at_the_end_of_a_block_is_rolled_back(database, admin):
    alias = database()
    with direct(alias) as connection:
        connection.set_autocommit(False)
        with connection.cursor() as cursor:
            cursor.execute("create table left_behind ()")

    assert (None,) == admin.execute("select to_regclass('left_behind')").fetchone()


def test_blocks_can_be_in_blocks(database, written):
    alias = database(PORT=NOWHERE, direct=written)
    with direct(alias):
        with direct(alias):
            assert is_direct(alias)

        assert is_direct(alias)

    assert leads_nowhere(alias)


def test_a_block_in_a_block_ends_no_session(database, sessions):
    alias = database()
    with direct(alias):
        is_direct(alias)
        (before,) = sessions.pids
        with direct(alias):
            is_direct(alias)

        assert is_direct(alias)
        assert [before] == sessions.pids


def test_what_is_not_committed_yet_is_not_lost(database):
    alias = database()
    connection = connections[alias]
    connection.set_autocommit(False)
    with connection.cursor() as cursor:
        cursor.execute("create temp table kept ()")
    with pytest.raises(TransactionManagementError), direct(alias):
        pass
    connection.commit()
    connection.set_autocommit(True)
    with connection.cursor() as cursor:
        cursor.execute("select * from kept")


def test_a_transaction_stays_where_it_is(database):
    alias = database()
    with (
        transaction.atomic(using=alias),
        pytest.raises(TransactionManagementError),
        direct(alias),
    ):
        pass


def test_only_a_database_of_edgepools_has_a_direct_way(database):
    alias = database(ENGINE="django.db.backends.postgresql")
    with pytest.raises(ImproperlyConfigured, match="ENGINE"), direct(alias):
        pass


def test_a_direct_address_that_is_the_poolers_is_refused(database, ways):
    pooled, _ = ways
    alias = database(pooled, direct=pooled)
    with direct(alias), pytest.raises(OperationalError) as caught:
        is_direct(alias)

    assert "direct_conninfo leads to a pooler" in str(caught.value.__cause__.__cause__)


def test_the_pools_own_direct_connections_and_listeners_go_there(database, ways):
    pooled, past = ways
    alias = database(pooled, direct=past)
    with connections[alias].pool.direct() as conn:
        (pid,) = conn.execute("select pg_backend_pid()").fetchone()

        assert pid == conn.info.backend_pid


def test_migrate_goes_there_until_the_connection_is_closed(database, written):
    alias = database(PORT=NOWHERE, direct=written)
    call_command("migrate", database=alias, verbosity=0)

    assert is_direct(alias)

    connections[alias].close()

    assert leads_nowhere(alias)


def test_without_a_direct_address_migrate_goes_through_the_pool(database):
    alias = database()
    call_command("migrate", database=alias, verbosity=0)

    assert 1 == connections[alias].pool.statistics().in_use


def test_dbshell_goes_there(database, server, written):
    alias = database(PORT=NOWHERE, direct=written, sslmode="disable")
    client = connections[alias].client
    command, environment = client.settings_to_cmd_args_env(
        connections[alias].settings_dict, ["-c", "select 1"]
    )

    assert ["psql", "-U", server.user, "-h", server.host, "-p"] == command[:6]
    assert [str(server.port), "-c", "select 1", server.dbname] == command[6:]
    assert "disable" == environment["PGSSLMODE"]


def test_a_database_for_tests_is_made_and_used_there(database, server):
    # Its name is that of the pooler's database, whatever that is called elsewhere.
    alias = database(NAME="made", PORT=NOWHERE, direct=server.conninfo)
    connection = connections[alias]
    before = dict(connection.settings_dict)
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        assert is_direct(alias)
        assert "test_made" == connection.connection.info.dbname
        assert connection.pool.statistics().in_use
    finally:
        connection.creation.destroy_test_db(before["NAME"], verbosity=0)

    assert before == connection.settings_dict


def test_a_mirror_in_tests_is_used_there(database, server):
    alias = database(PORT=NOWHERE, direct=server.conninfo, NAME="another")
    creation = connections[alias].creation
    creation.set_as_test_mirror({"NAME": server.dbname})

    assert is_direct(alias)
    assert connections[alias].pool.statistics().in_use


# --- the alias of another database ----------------------------------------------------


def ask(alias, query):
    with connections[alias].cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]


@pytest.fixture(params=ENGINES.values(), ids=ENGINES)
def past(request, server, database):
    """A database that is only there to be the direct way; Django's pool is on, too."""
    return database(server.conninfo, ENGINE=request.param, pool=True, TEST=dict(ALONE))


def test_who_connects_there_is_who_connects_as_that_alias(database, admin):
    admin.execute("create role owner_of_all login; grant pg_monitor to owner_of_all")
    past = database(USER="owner_of_all", assume_role="pg_monitor")
    alias = database(PORT=NOWHERE, direct=past, assume_role="nobody", sslmode="require")
    try:
        with direct(alias):
            assert "pg_monitor" == ask(alias, "select current_user")
            assert "owner_of_all" == ask(alias, "select session_user")
    finally:
        admin.execute("drop role owner_of_all")


def test_what_is_made_of_a_connection_stays_as_it_is_there(database, past):
    level = psycopg.IsolationLevel.SERIALIZABLE
    entries = {"TIME_ZONE": "Asia/Tokyo", "isolation_level": level}
    alias = database(PORT=NOWHERE, direct=past, prepare_threshold=7, **entries)
    with direct(alias) as connection, transaction.atomic(using=alias):
        assert "Asia/Tokyo" == ask(alias, "show timezone")
        assert "serializable" == ask(alias, "show transaction_isolation")
        assert 7 == connection.connection.prepare_threshold


def test_the_pools_own_direct_connections_go_there(database, past):
    with connections[database(PORT=NOWHERE, direct=past)].pool.direct() as conn:
        assert conn.execute("select 1").fetchone()


def test_a_direct_alias_that_leads_to_the_pooler_is_refused(database, ways):
    pooled, _ = ways
    alias = database(pooled, direct=database(pooled))
    with direct(alias), pytest.raises(OperationalError) as caught:
        is_direct(alias)

    assert "direct_conninfo leads to a pooler" in str(caught.value.__cause__.__cause__)


@pytest.mark.parametrize("keepdb", [False, True])
def test_that_database_is_the_same_in_tests_and_both_are_as_before_afterwards(
    database, past, admin, keepdb
):
    alias = database(NAME="made", PORT=NOWHERE, direct=past, TEST=dict(ALONE))
    # Django's tests are in the one that comes first, and its own would not make ours
    # let go of it.
    settings = connections.settings
    settings[past] = settings.pop(past)
    before = {name: dict(settings[name]) for name in (alias, past)}
    made = setup_databases(0, False, aliases=before)
    with connections[alias].cursor() as cursor:
        cursor.execute("create table shared ()")

    assert 0 == ask(past, "select count(*) from shared")

    teardown_databases(made, 0, keepdb=keepdb)
    there = "select count(*) from pg_database where datname = 'test_made'"

    assert (int(keepdb),) == admin.execute(there).fetchone()
    assert before == {name: connections[name].settings_dict for name in before}

    # Not if anybody were still connected to it.
    admin.execute("drop database if exists test_made")


def test_mirrors_are_as_before_after_the_tests(database, server, admin):
    primary = database(NAME="mirrored", TEST=dict(ALONE))
    mirror = database(PORT=NOWHERE, direct=server.conninfo, TEST={"MIRROR": primary})
    before = dict(connections[mirror].settings_dict)
    made = setup_databases(0, False, aliases={primary})

    assert "test_mirrored" == ask(mirror, "select current_database()")

    pool = connections[mirror].pool
    connections[mirror].close()
    teardown_databases(made, 0, keepdb=True)

    assert before == connections[mirror].settings_dict
    assert pool.closed

    admin.execute("drop database test_mirrored")


# --- behind a pooler ------------------------------------------------------------------


def test_rows_in_chunks_need_no_session_behind_a_pooler(database, ways):
    pooled, _ = ways
    alias = database(pooled)
    connection = connections[alias]
    with connection.chunked_cursor() as cursor:
        cursor.execute(MANY)

        assert not hasattr(cursor.cursor, "scrollable")
        assert 5000 == sum(len(rows) for rows in iter(cursor.fetchmany, []))


def test_rows_in_chunks_stay_on_the_server_in_a_transaction(database, ways):
    pooled, _ = ways
    alias = database(pooled)
    with (
        transaction.atomic(using=alias),
        connections[alias].chunked_cursor() as cursor,
    ):
        cursor.execute(MANY)

        assert cursor.cursor.name
        assert 100 == len(cursor.fetchmany(100))


def test_rows_in_chunks_stay_on_the_server_without_a_pooler(database):
    with connections[database()].chunked_cursor() as cursor:
        cursor.execute(MANY)

        assert cursor.cursor.name
        assert 100 == len(cursor.fetchmany(100))
