"""An entry of Django's DATABASES says what a DSN does."""

from __future__ import annotations

import pytest
from psycopg import IsolationLevel

from edgepool.psycopg._dsn import parse
from support.dsn import DJANGO, SECRET, libpq, refusal


def test_a_database_of_djangos_is_understood():
    assert {
        "dbname": "shop",
        "user": "me",
        "password": r"it's \ here",
        "host": "h",
        "port": "5433",
    } == libpq(DJANGO)


def test_of_all_databases_of_djangos_the_default_is_meant():
    other = {**DJANGO, "NAME": "other"}

    assert "shop" == libpq({"replica": other, "default": DJANGO})["dbname"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"NAME": "", "HOST": "", "PORT": "", "USER": ""}, {}),
        ({"NAME": None}, {"dbname": "postgres"}),
        ({"HOST": "/var/run/postgresql"}, {"host": "/var/run/postgresql"}),
        ({"HOST": "a,b", "PORT": "1,2"}, {"host": "a,b", "port": "1,2"}),
        ({"NAME": "", "OPTIONS": {"service": "shop"}}, {"service": "shop"}),
        ({"HOST": "h", "OPTIONS": None}, {"host": "h"}),
        (
            {"NAME": "shop", "OPTIONS": {"sslmode": "require", "connect_timeout": 3}},
            {"dbname": "shop", "sslmode": "require", "connect_timeout": "3"},
        ),
    ],
)
def test_an_entry_of_djangos_that_is_empty_says_nothing(given, expected):
    assert expected == libpq(given)


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"TIME_ZONE": "Europe/Berlin"}, "-c TimeZone=Europe/Berlin"),
        ({"TIME_ZONE": None}, None),
        ({"OPTIONS": {"assume_role": "app"}}, "-c role=app"),
        (
            {"OPTIONS": {"isolation_level": IsolationLevel.REPEATABLE_READ}},
            r"-c default_transaction_isolation=repeatable\ read",
        ),
        (
            {"TIME_ZONE": "UTC", "OPTIONS": {"options": "-c work_mem=8MB"}},
            "-c TimeZone=UTC -c work_mem=8MB",
        ),
    ],
)
def test_what_django_sets_in_a_session_becomes_options(given, options):
    assert options == libpq({"NAME": "shop", **given}).get("options")


def test_an_isolation_level_of_djangos_is_one_of_psycopgs():
    said = refusal({"NAME": "shop", "OPTIONS": {"isolation_level": 7}})

    assert said.endswith("1 to 4, not 7")


def test_djangos_pool_gives_arguments_of_any_kind():
    def check(conn):
        pass

    pool = {"min_size": 2, "max_size": "4", "timeout": 5, "check": check}
    options = {"pool": pool, "prepare_threshold": 3, "server_side_binding": True}

    found = parse({**DJANGO, "OPTIONS": options})

    assert {"min_size": 2, "max_size": 4, "timeout": 5, "check": check} == (
        found.arguments
    )
    assert {"prepare_threshold": 3} == found.connect
    assert parse(DJANGO).conninfo == found.conninfo


@pytest.mark.parametrize(
    "direct",
    [
        "postgresql://there:7/",
        "host=there port=7",
        {"host": "there", "port": 7},
        {"HOST": "there", "PORT": "7"},
    ],
)
def test_djangos_direct_address_is_what_differs_from_the_other(direct):
    found = parse({**DJANGO, "OPTIONS": {"sslmode": "disable", "direct": direct}})
    expected = {**libpq({**DJANGO, "OPTIONS": {"sslmode": "disable"}})}

    assert {**expected, "host": "there", "port": "7"} == libpq(
        found.arguments["direct_conninfo"]
    )
    assert expected == libpq(found.conninfo)


@pytest.mark.parametrize(
    ("direct", "said"),
    [
        (7, "conninfo must be a string, a dict or a function, not int"),
        ("mysql://there", "mysql:// is not the address of a PostgreSQL server"),
        ({"ENGINE": "mysql"}, "ENGINE is not a backend of PostgreSQL: 'mysql'"),
        (f"host=a password={SECRET} b", "it is not a connection string"),
        ({"HOTS": "db"}, "no setting 'HOTS'; did you mean HOST?"),
        ({"hots": "db"}, "libpq has no parameter 'hots'; did you mean host?"),
    ],
)
def test_djangos_direct_address_is_validated(direct, said):
    refused = refusal({**DJANGO, "OPTIONS": {"direct": direct}})

    assert refused.startswith(f"OPTIONS['direct']: {said}")
    assert SECRET not in refused


def databases(**past):
    """Give two of Django's: one behind a pooler, the other past it."""
    options = {"sslmode": "disable", "assume_role": "app", "direct": "past"}
    here = {**DJANGO, "TIME_ZONE": "Asia/Tokyo", "OPTIONS": options}
    return {"default": here, "past": {**DJANGO, "HOST": "there", "USER": "", **past}}


def test_djangos_direct_address_may_be_another_database():
    theirs = {"sslmode": "require", "assume_role": "owner", "pool": {"max_size": 7}}
    found = parse(databases(TIME_ZONE="UTC", OPTIONS=theirs))
    direct = libpq(found.arguments["direct_conninfo"])

    assert ("there", "require") == (direct["host"], direct["sslmode"])
    assert "user" not in direct
    assert "role=owner" in direct["options"]
    assert "TimeZone=Asia/Tokyo" in direct["options"]
    assert {"direct_conninfo"} == found.arguments.keys()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (databases()["default"], "give all databases, as in settings.DATABASES"),
        (
            {"default": databases()["default"], "pats": {}},
            "the alias of another database; did you mean pats?",
        ),
        (databases(OPTIONS={"direct": "past"}), "of 'past' is 'past' itself"),
        (databases(OPTIONS={"direct": "a=b"}), "is 'past', and that has an OPTIONS["),
        (databases(ENGINE="mysql"), "is 'past': ENGINE is not a backend"),
    ],
)
def test_djangos_other_database_is_validated(given, said):
    refused = refusal(given)

    assert refused.startswith("OPTIONS['direct'] ")
    assert said in refused


def test_a_direct_address_without_a_scheme_is_not_shown():
    direct = f"me:{SECRET}@there/shop"
    refused = refusal({**DJANGO, "OPTIONS": {"direct": direct}})

    assert SECRET not in refused


@pytest.mark.parametrize("pool", [True, False, None, {}])
def test_djangos_pool_need_not_say_more(pool):
    assert {} == parse({**DJANGO, "OPTIONS": {"pool": pool}}).arguments


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        (
            {"max_sise": 4},
            "OPTIONS['pool'] has no argument 'max_sise'; did you mean max_size?",
        ),
        ({"max_size": "many"}, "max_size must be a whole number, not 'many'"),
    ],
)
def test_djangos_pool_is_validated(pool, said):
    assert said == refusal({**DJANGO, "OPTIONS": {"pool": pool}})


@pytest.mark.parametrize(
    "engine",
    [
        "django.db.backends.mysql",
        "django.db.backends.sqlite3",
        "django.db.backends.oracle",
        "django.contrib.gis.db.backends.spatialite",
    ],
)
def test_a_database_of_another_kind_is_refused(engine):
    said = refusal({**DJANGO, "ENGINE": engine})

    assert f"ENGINE is not a backend of PostgreSQL: {engine!r}" == said


@pytest.mark.parametrize(
    "engine",
    [
        "django.contrib.gis.db.backends.postgis",
        "django_prometheus.db.backends.postgresql",
        "psqlextra.backend",
    ],
)
def test_a_backend_of_other_packages_is_postgresqls(engine):
    assert "shop" == libpq({**DJANGO, "ENGINE": engine})["dbname"]
