"""Django's connections come from the pool, and go back to it."""

from __future__ import annotations

import gc
import os
import threading
import time
from contextlib import nullcontext, suppress
from functools import partial

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, OperationalError, connections, transaction
from django.test import override_settings

import edgepool
from edgepool.django import _threads
from support.forks import Child
from support.pg import THREADS

PID = "select pg_backend_pid()"


def ask(alias, query=PID):
    """Execute a query and leave the connection as it is, as code of Django's does."""
    with connections[alias].cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]


def in_thread(function, *arguments):
    """Run something in a thread that ends then; give what it gave, or raise."""
    outcome = []

    def run():
        try:
            outcome.append(function(*arguments))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


class Holder(threading.Thread):
    """A thread that keeps its connection, and asks once more in the end."""

    def __init__(self, alias, query=PID, block=nullcontext):
        super().__init__(daemon=True)
        self.alias, self.query, self.block = alias, query, block
        self.holds, self.ends = threading.Event(), threading.Event()
        self.start()
        self.holds.wait()

    def run(self):
        with suppress(Error), self.block():
            self.first = ask(self.alias, self.query)
            self.holds.set()
            self.ends.wait()
            self.second = ask(self.alias, self.query)

    def end(self):
        self.ends.set()
        self.join()


# --- the pool -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"pool": True}, {"pool": {}}, {"pool": {"min_size": "0"}}]
)
def test_there_is_a_pool_unless_it_is_switched_off(database, options):
    pool = connections[database(**options)].pool

    assert isinstance(pool, edgepool.ConnectionPool)
    assert (0, 4) == (pool.min_size, pool.max_size)


@pytest.mark.parametrize("off", [False, None])
def test_without_a_pool_a_connection_is_djangos_own(database, sessions, off):
    alias = database(pool=off, CONN_MAX_AGE=60)
    ask(alias)

    assert connections[alias].pool is None
    assert 1 == sessions.count

    connections[alias].close()


def test_nothing_connects_before_the_first_query(database, sessions):
    alias = database(pool={"min_size": 2})
    pool = connections[alias].pool

    assert pool.closed
    assert 0 == sessions.count

    ask(alias)

    assert not pool.closed


def test_a_closed_connection_is_kept_by_the_pool(database, sessions):
    alias = database()
    first = ask(alias)
    connections[alias].close()
    second = ask(alias)

    assert first == second
    assert [first] == sessions.pids


def test_the_pool_has_the_name_of_the_alias_and_the_arguments_of_the_settings(database):
    seen = []
    arguments = {"max_size": 7, "timeout": "2.5", "check": seen.append}
    arguments |= {"classify": lambda _: None, "reset": "clean", "nested": "wait"}
    alias = database(pool=arguments)
    pool = connections[alias].pool
    ask(alias)
    connections[alias].close()
    ask(alias)

    assert (alias, 0, 7) == (pool.name, pool.min_size, pool.max_size)
    assert (2.5, "wait") == (pool.timeout, pool.nested)
    assert 2 == len(seen)


def test_a_smaller_number_is_the_largest_if_only_that_is_given(database):
    pool = connections[database(pool={"min_size": 2})].pool

    assert (2, 2) == (pool.min_size, pool.max_size)


def test_a_configure_comes_after_djangos_own(database):
    seen = []

    def configure(connection):
        seen.append(connection.execute("show timezone").fetchone()[0])

    ask(database(pool={"configure": configure}, TIME_ZONE="Asia/Tokyo"))

    assert ["Asia/Tokyo"] == seen


@pytest.mark.parametrize("wanted", [False, True])
def test_health_checks_are_round_trips_only_if_they_are_asked_for(database, wanted):
    pool = connections[database(CONN_HEALTH_CHECKS=wanted)].pool

    assert (0.0 if wanted else float("inf")) == pool.check_after


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"pool": {"max_sise": 4}},
            "OPTIONS['pool'] has no argument 'max_sise'; did you mean max_size?",
        ),
        ({"pool": {"open": True}}, "OPTIONS['pool'] has no argument 'open'"),
        ({"pool": {"configure": 3}}, "configure must be a function, not 3"),
        ({"pool": {"max_size": -1}}, "max_size must be at least"),
        ({"pool": "yes"}, "OPTIONS['pool'] must be True, False or a dictionary"),
        ({"direct": 7}, "OPTIONS['direct']: conninfo must be a string, a dict"),
        ({"direct": "mysql://there"}, "OPTIONS['direct']: mysql:// is not"),
        ({"CONN_MAX_AGE": 60}, "CONN_MAX_AGE must be 0, not 60"),
        ({"CONN_MAX_AGE": None}, "CONN_MAX_AGE must be 0, not None"),
    ],
)
def test_settings_that_cannot_be_are_refused(database, given, said):
    with pytest.raises(ImproperlyConfigured) as caught:
        ask(database(**given))

    assert said in str(caught.value)


def test_settings_that_change_while_it_runs_make_another_pool(database):
    alias = database(pool={"max_size": 7})
    first = connections[alias].pool
    connections[alias].settings_dict["OPTIONS"]["pool"]["max_size"] = 5

    assert (7, 5) == (first.max_size, connections[alias].pool.max_size)


def test_health_checks_and_an_age_that_are_set_while_it_runs(database):
    alias = database()
    connection = connections[alias]
    ask(alias)
    before = connection.pool
    connection.close()
    connection.settings_dict["CONN_HEALTH_CHECKS"] = True

    assert before is not connection.pool

    # An age is refused for the first pool only, as by Django, whose own tests do this.
    connection.settings_dict.update(CONN_HEALTH_CHECKS=False, CONN_MAX_AGE=None)
    ask(alias)

    assert before is connection.pool

    connection.close()
    connection.settings_dict["CONN_MAX_AGE"] = 0


def test_two_aliases_of_one_database_have_a_pool_each(database):
    alias, other = (database(pool={"max_size": 1, "timeout": 5}) for _ in range(2))

    # One of them: a thread that holds both would wait for itself.
    assert ask(alias) != ask(other)


def test_an_exhausted_pool_is_an_operational_error(database):
    alias = database(pool={"max_size": 1})
    ask(alias)
    connections[alias].pool.timeout = 0.01

    with pytest.raises(OperationalError) as caught:
        in_thread(ask, alias)

    assert isinstance(caught.value.__cause__, edgepool.PoolTimeout)


# --- threads --------------------------------------------------------------------------


def test_threads_that_close_nothing_exhaust_nothing(database, sessions):
    alias = database(pool={"max_size": 2, "timeout": 5})
    gc.disable()  # Django's wrappers are in cycles: what is lost is lost for long
    try:
        pids = {in_thread(ask, alias) for _ in range(50)}
    finally:
        gc.enable()

    assert 1 == len(pids)
    assert 0 == connections[alias].pool.statistics().in_use
    assert 0 == connections[alias].pool.statistics().leaked
    assert 1 == sessions.count


def test_a_thread_that_ends_in_a_transaction_leaves_nothing_of_it(database):
    def begin():
        connections[alias].set_autocommit(False)
        ask(alias, "select set_config('some.thing', 'left', true)")

    alias = database(pool={"max_size": 1, "timeout": 5})
    in_thread(begin)

    assert not ask(alias, "select current_setting('some.thing', true)")


def test_what_threads_share_outlives_the_one_that_made_it(database):
    def share():
        connection = connections[alias]
        connection.inc_thread_sharing()
        ask(alias)
        return connection, connection.connection

    alias = database()
    shared, kept = in_thread(share)
    with shared.cursor() as cursor:
        cursor.execute("select 42")

        assert (42,) == cursor.fetchone()

    assert kept is shared.connection

    shared.close()

    assert 0 == shared.pool.statistics().in_use


# --- sessions -------------------------------------------------------------------------


def test_a_session_that_was_ended_costs_nobody_an_error(database, sessions):
    alias = database()
    first = ask(alias)
    connections[alias].close()
    sessions.terminate()

    assert first != ask(alias)


def test_a_time_zone_that_somebody_has_set_is_put_right(database):
    alias = database(TIME_ZONE="Asia/Tokyo")
    ask(alias, "select set_config('timezone', 'Europe/Paris', false)")
    connections[alias].close()

    assert "Asia/Tokyo" == ask(alias, "show timezone")


@pytest.fixture
def own_time_zone():
    """Put the process's time zone back, which Django sets with its own, and leaves."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TZ", os.environ.get("TZ", ""))
        yield
    time.tzset()


@pytest.mark.usefixtures("own_time_zone")
def test_another_time_zone_does_not_close_the_pool(database):
    alias = database(pool={"max_size": 1, "timeout": 5})
    pool, first = connections[alias].pool, ask(alias)
    with override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo"):
        assert "Asia/Tokyo" == ask(alias, "show timezone")
        assert first == ask(alias)

    assert "UTC" == ask(alias, "show timezone")
    assert pool is connections[alias].pool


def test_an_isolation_level_holds_for_each_borrow(database):
    level = psycopg.IsolationLevel.SERIALIZABLE
    alias = database(isolation_level=level)
    for _ in range(2):
        with transaction.atomic(using=alias):
            assert "serializable" == ask(alias, "show transaction_isolation")
        connections[alias].close()


def test_a_role_is_assumed(database):
    assert "pg_monitor" == ask(database(assume_role="pg_monitor"), "select user")


def test_a_service_says_where_the_database_is(database, server, tmp_path, monkeypatch):
    services = tmp_path / "services"
    services.write_text(
        f"[shop]\nhost={server.host}\nport={server.port}\n"
        f"user={server.user}\ndbname={server.dbname}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))

    assert ask(database(NAME="", HOST="", PORT="", USER="", service="shop"))


def test_to_close_in_a_transaction_rolls_it_back(database):
    alias = database(pool={"max_size": 1, "timeout": 5})
    with pytest.raises(Error), transaction.atomic(using=alias):
        ask(alias, "select set_config('some.thing', 'left', true)")
        connections[alias].close()
        ask(alias)

    assert not ask(alias, "select current_setting('some.thing', true)")


def test_a_pool_that_was_closed_is_made_anew(database, sessions):
    alias = database()
    ask(alias)
    pool = connections[alias].pool
    connections[alias].close_pool()

    assert pool.closed
    assert ask(alias)
    assert pool is not connections[alias].pool


def test_a_database_can_be_dropped_though_others_are_connected(database, admin):
    admin.execute("create database to_drop")
    alias, other = database(NAME="to_drop"), database(NAME="to_drop")
    ask(alias)
    holder = Holder(other)
    connections[alias].creation.destroy_test_db(verbosity=0)
    there = "select count(*) from pg_database where datname = 'to_drop'"

    assert (0,) == admin.execute(there).fetchone()

    holder.end()


# --- forks ----------------------------------------------------------------------------


def test_a_forked_child_has_connections_of_its_own(database):
    async def in_the_child():
        return ask(alias), connections[alias].pool.statistics().size

    alias = database(pool={"max_size": 2, "timeout": 5})
    holder = Holder(alias)
    mine = ask(alias)
    theirs, size = THREADS.run(Child(THREADS, in_the_child).outcome())

    assert theirs not in (mine, holder.first)
    assert 1 == size
    assert mine == ask(alias)

    holder.end()

    assert holder.first == holder.second


def test_a_fork_leaves_alone_what_other_threads_have_open(database):
    async def in_the_child():
        gc.collect()
        return ask(alias)

    alias = database(pool={"max_size": 2, "timeout": 5})
    holder = Holder(alias, "select txid_current()", partial(transaction.atomic, alias))
    for _ in range(3):
        THREADS.run(Child(THREADS, in_the_child).outcome())
    holder.end()

    assert holder.first == holder.second


def test_a_thread_of_the_parents_does_not_end_in_the_child():
    class Borrower:
        def return_at_end_of_thread(self):
            ended.append(os.getpid())

    async def in_the_child():
        return ended

    def borrow():
        _threads.note(borrower)
        noted.set()
        ends.wait()

    ended, borrower = [], Borrower()
    noted, ends = threading.Event(), threading.Event()
    thread = threading.Thread(target=borrow, daemon=True)
    thread.start()
    noted.wait()

    # There its data are destroyed before anybody is told of the fork.
    assert [] == THREADS.run(Child(THREADS, in_the_child).outcome())

    ends.set()
    thread.join()

    assert [os.getpid()] == ended


def test_a_transaction_does_not_go_on_in_a_forked_child(database):
    async def in_the_child():
        try:
            ask(alias)
        except Error as error:
            return type(error.__cause__).__name__

    alias = database()
    with transaction.atomic(using=alias):
        mine = ask(alias)
        error = THREADS.run(Child(THREADS, in_the_child).outcome())

        assert "BorrowedBeforeFork" == error
        assert mine == ask(alias)
