"""What a DSN says: to libpq all that is libpq's, to the pool the rest, to nobody more.

`conninfo_to_dict` is libpq's own reading. No pool and no server here.
"""

from __future__ import annotations

import math
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from edgepool.psycopg._dsn import parse
from edgepool.psycopg._dsn_parameters import ARGUMENTS
from support.dsn import DJANGO, SECRET, libpq, refusal

# --- what is libpq's ------------------------------------------------------------------


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "host=a,b port=1,2 dbname=shop user=me password='it''s'",
        r"host=/var/run/postgresql password='it\'s \\ here' application_name = web",
        "service=shop",
        "postgresql://",
        "postgres://me:p%40ss%2Fword@a:1,b:2/shop?target_session_attrs=read-write",
        "postgresql://me@[2001:db8::1]:5432/shop?sslmode=verify-full&sslrootcert=system",
        "postgresql://%2Fvar%2Frun%2Fpostgresql/shop",
        "postgresql:///shop?host=/var/run/postgresql&port=5433",
        "postgresql://me:who?pool_timeout=5@host/shop",
        "postgresql://host/shop?unknown=1",
        # Not for libpq to read, but for libpq to say so.
        "nonsense",
        "host=a pool_timeout",
        "password='never closed pool_timeout=5",
        "postgresql://host/shop?sslmode",
    ],
)
def test_what_is_all_libpqs_stays_as_it_is(dsn):
    found = parse(dsn)

    assert (dsn, {}, {}, None) == (
        found.conninfo,
        found.arguments,
        found.connect,
        found.pooler,
    )


def test_none_is_the_empty_string():
    assert "" == parse(None).conninfo


@pytest.mark.parametrize("scheme", ["pgsql", "psql", "postgis", "POSTGRESQL"])
def test_a_scheme_of_other_packages_is_postgresqls(scheme):
    assert {"host": "h", "dbname": "shop"} == libpq(f"{scheme}://h/shop")


def test_a_dictionary_may_hold_libpqs_parameters():
    given = {"host": "h", "port": 5433, "password": r"it's \ here", "user": None}

    assert {"host": "h", "port": "5433", "password": r"it's \ here"} == libpq(given)


def test_what_psycopg_keeps_from_libpq_is_not_in_the_string():
    found = parse({"host": "h", "autocommit": True, "prepare_threshold": None})

    assert {"autocommit": True, "prepare_threshold": None} == found.connect
    assert {"host": "h"} == conninfo_to_dict(found.conninfo)


@pytest.mark.parametrize("given", [5, b"host=h", ["host=h"], {5: "h"}], ids=repr)
def test_what_is_no_dsn_is_a_type_error(given):
    with pytest.raises(TypeError, match="must be"):
        parse(given)


# --- what is the pool's ---------------------------------------------------------------


FORMS = {
    "uri": "postgresql://me:p%40ss@a:1,b:2/shop?{}&sslmode=require",
    "uri, nothing else": "postgresql://me:p%40ss@a:1,b:2/shop?{}",
    "sqlalchemy": "postgresql+psycopg://me:p%40ss@a:1/shop?{}",
    "pairs": "host=a user=me password='p@ss' {} sslmode=require",
    "pairs, first": "{} host=a user=me password='p@ss'",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_parameter_of_the_pool_is_taken_out(form):
    found = parse(form.format("pool_max_size=20"))

    assert {"max_size": 20} == found.arguments
    assert "pool" not in found.conninfo
    without = libpq(form.format("application_name=x"))
    del without["application_name"]

    assert without == conninfo_to_dict(found.conninfo)


def test_a_parameter_of_the_pool_may_be_in_a_dictionary():
    found = parse({"host": "h", "pool_max_size": 20, "pool_close_returns": True})

    assert {"max_size": 20, "close_returns": True} == found.arguments
    assert "host='h'" == found.conninfo


VALUES = {
    "min_size": ("2", 2),
    "max_size": ("20", 20),
    "open": ("false", False),
    "reset": ("clean", "clean"),
    "name": ("web%20workers", "web workers"),
    "close_returns": ("true", True),
    "timeout": ("2.5", 2.5),
    "max_waiting": ("100", 100),
    "max_lifetime": ("1e3", 1000.0),
    "max_idle": ("inf", math.inf),
    "reconnect_timeout": ("60", 60.0),
    "num_workers": ("5", 5),
    "max_connecting": ("none", None),
    "check_after": ("0.5", 0.5),
    "nested": ("wait", "wait"),
    "pooler": ("session", "session"),
    "role": ("primary", "primary"),
    "track_borrows": ("on", True),
    "expire_with_credentials": ("on", True),
    "shed_target": ("0.05", 0.05),
    "shed_interval": ("2", 2.0),
}


def test_each_argument_that_can_be_written_is_shown_here():
    assert set(VALUES) == set(ARGUMENTS)


@pytest.mark.parametrize("name", VALUES)
def test_an_argument_of_the_pool_has_its_type(name):
    written, value = VALUES[name]

    found = parse(f"postgresql://h?pool_{name}={written}").arguments

    assert [(name, value, type(value))] == [(k, v, type(v)) for k, v in found.items()]


def test_the_last_of_two_counts_as_in_libpq():
    assert {"timeout": 2.0} == parse("pool_timeout=1 pool_timeout=2").arguments


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("pool_max_size=many", "pool_max_size must be a whole number, not 'many'"),
        ("pool_max_size=2.5", "pool_max_size must be a whole number, not '2.5'"),
        ("pool_max_size=", "pool_max_size must be a whole number, not ''"),
        ("pool_timeout=5s", "pool_timeout must be a number of seconds, not '5s'"),
        ("pool_open=maybe", "pool_open must be true or false, not 'maybe'"),
        (
            "pool_max_conn_lifetime=90",
            "pool_max_conn_lifetime must be a duration such as 1h30m or 10s, not '90'",
        ),
        (
            "pool_health_check_period=1x",
            "pool_health_check_period must be a duration such as 1h30m or 10s,"
            " not '1x'",
        ),
        ("connection_limit=x", "connection_limit must be a whole number, not 'x'"),
        (
            "socket_timeout=-1",
            "socket_timeout must be a number of seconds from 0 to 2147483, not '-1'",
        ),
        ("pgbouncer=maybe", "pgbouncer must be true or false, not 'maybe'"),
        (
            "sslaccept=lax",
            "sslaccept must be 'strict' or 'accept_invalid_certs', not 'lax'",
        ),
        (
            "sslidentity=client.p12",
            "sslidentity names a PKCS #12 file, which libpq cannot read:"
            " convert it to PEM, and give sslcert and sslkey",
        ),
        (
            "pool_max_sise=3",
            "pool_max_sise is not a parameter of the pool; did you mean pool_max_size?",
        ),
        ("pool_x=3", "pool_x is not a parameter of the pool"),
        ("pool_configure=f", "pool_configure is not a parameter of the pool"),
        (
            "pool_max_size=3&connection_limit=3",
            "pool_max_size and connection_limit both set max_size",
        ),
        (
            "max_connection_lifetime=3&single_use_connections=true",
            "max_connection_lifetime and single_use_connections both set max_lifetime",
        ),
    ],
)
def test_a_parameter_that_cannot_be_is_named(parameter, said):
    assert said == refusal(f"postgresql://h/shop?{parameter}")
    assert said == refusal("host=h " + " ".join(parameter.split("&")))


# --- other people's parameters --------------------------------------------------------


def test_pgxs_parameters_are_understood():
    found = parse(
        "user=me password=hush host=h dbname=shop pool_max_conns=10 pool_min_conns=2"
        " pool_max_conn_lifetime=1h30m pool_max_conn_idle_time=90s"
        " pool_max_conn_lifetime_jitter=5m pool_health_check_period=1m"
        " pool_min_idle_conns=1"
    )

    assert {
        "max_size": 10,
        "min_size": 2,
        "max_lifetime": 5400.0,
        "max_idle": 90.0,
    } == found.arguments
    assert "user='me' password='hush' host='h' dbname='shop'" == found.conninfo


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("0", 0.0),
        ("1.5h", 5400.0),
        ("2m.5s", 120.5),
        ("1h1m1s1ms1us1ns", 3661.001001001),
        ("+250\u00b5s", 250e-6),
        ("250\u03bcs", 250e-6),
        ("-1m", -60.0),
    ],
)
def test_a_duration_is_written_as_in_go(written, seconds):
    found = parse({"pool_max_conn_lifetime": written}).arguments["max_lifetime"]

    assert pytest.approx(seconds, rel=1e-12) == found


def test_prismas_parameters_are_understood():
    found = parse(
        "postgresql://me:hush@h:5432/shop?schema=public&connection_limit=5"
        "&pool_timeout=2&connect_timeout=7&max_connection_lifetime=60"
        "&max_idle_connection_lifetime=30&application_name=web"
    )

    assert {
        "max_size": 5,
        "timeout": 2.0,
        "max_lifetime": 60.0,
        "max_idle": 30.0,
    } == found.arguments
    assert (
        "postgresql://me:hush@h:5432/shop?connect_timeout=7&application_name=web"
        "&options=-c%20search_path%3D%22public%22"
    ) == found.conninfo


def test_in_prismas_parameters_0_is_no_limit():
    found = parse(
        "postgres://postgres:postgres@localhost:51214/template1?sslmode=disable"
        "&connection_limit=1&connect_timeout=0&max_idle_connection_lifetime=0"
        "&pool_timeout=0&single_use_connections=true&socket_timeout=0"
    )

    assert {
        "max_size": 1,
        "max_idle": math.inf,
        "timeout": math.inf,
        "max_lifetime": 0.0,
    } == found.arguments
    assert (
        "postgres://postgres:postgres@localhost:51214/template1"
        "?sslmode=disable&connect_timeout=0"
    ) == found.conninfo


def test_without_prisma_a_timeout_of_0_is_no_wait():
    assert {"timeout": 0.0} == parse("postgresql://h?pool_timeout=0").arguments


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ("schema=shop", '-c search_path="shop"'),
        ('schema=My"Shop', '-c search_path="My""Shop"'),
        ("schema=my%20shop", r'-c search_path="my\ shop"'),
        ("schema=a%5Cb", r'-c search_path="a\\b"'),
        ("socket_timeout=2.5", "-c statement_timeout=2500"),
        (
            "options=-c%20work_mem%3D8MB&schema=s&socket_timeout=1",
            '-c search_path="s" -c statement_timeout=1000 -c work_mem=8MB',
        ),
        ("schema=", None),
        ("schema=public&pgbouncer=true", None),
        ("schema=public&pgbouncer=false", '-c search_path="public"'),
        ("schema=shop&pgbouncer=true", '-c search_path="shop"'),
    ],
)
def test_what_prisma_sets_in_a_session_becomes_options(parameters, options):
    assert options == libpq(f"postgresql://h/shop?{parameters}").get("options")


@pytest.mark.parametrize(
    ("parameter", "pooler"),
    [("pgbouncer=true", "transaction"), ("pgbouncer=false", None), ("schema=x", None)],
)
def test_prisma_says_that_there_is_a_pooler(parameter, pooler):
    assert pooler == parse(f"postgresql://h?{parameter}").pooler


@pytest.mark.parametrize(
    ("parameter", "connect"),
    [
        ("statement_cache_size=0", {"prepare_threshold": None}),
        ("statement_cache_size=500", {}),
    ],
)
def test_a_cache_of_0_statements_prepares_none(parameter, connect):
    assert connect == parse(f"postgresql://h?{parameter}").connect


TLS = {
    "sslaccept=strict": {"sslmode": "verify-full", "sslrootcert": "system"},
    "sslaccept=strict&sslmode=require": {
        "sslmode": "verify-full",
        "sslrootcert": "system",
    },
    "sslaccept=strict&sslcert=ca.pem": {
        "sslmode": "verify-full",
        "sslrootcert": "ca.pem",
    },
    "sslaccept=strict&sslmode=verify-ca&sslrootcert=ca.pem": {
        "sslmode": "verify-ca",
        "sslrootcert": "ca.pem",
    },
    "sslaccept=strict&sslmode=disable": {"sslmode": "disable"},
    "sslaccept=accept_invalid_certs&sslmode=require": {"sslmode": "require"},
    # Else libpq would verify, from its mere presence.
    "sslaccept=accept_invalid_certs&sslmode=require&sslcert=ca.pem": {
        "sslmode": "require"
    },
    # A client's own certificate, as libpq has it.
    "schema=&sslcert=me.pem&sslkey=me.key": {"sslcert": "me.pem", "sslkey": "me.key"},
    "sslcert=me.pem": {"sslcert": "me.pem"},
    "statement_cache_size=0&sslcert=me.pem": {"sslcert": "me.pem"},
}


@pytest.mark.parametrize(("parameters", "expected"), TLS.items(), ids=TLS)
def test_prismas_idea_of_tls_is_said_in_libpqs_words(parameters, expected):
    assert {"host": "h", **expected} == libpq(f"postgresql://h?{parameters}")


@pytest.mark.parametrize(
    "driver", ["psycopg", "psycopg_async", "psycopg2", "asyncpg", "pg8000"]
)
def test_a_url_of_sqlalchemy_is_libpqs_whatever_the_driver(driver):
    url = f"postgresql+{driver}://me:p%40ss@h:5433/shop?application_name=web"

    assert {
        "user": "me",
        "password": "p@ss",
        "host": "h",
        "port": "5433",
        "dbname": "shop",
        "application_name": "web",
    } == libpq(url)


SQLALCHEMY = {
    "me@azure:a/b?c@h/shop": {
        "user": "me@azure",
        "password": "a/b?c",
        "host": "h",
        "dbname": "shop",
    },
    "me:hush@/shop?host=/var/run/postgresql": {
        "user": "me",
        "password": "hush",
        "dbname": "shop",
        "host": "/var/run/postgresql",
    },
    "/shop?host=a:1&host=b&host=c:3": {
        "dbname": "shop",
        "host": "a,b,c",
        "port": "1,,3",
    },
    "/shop?host=a,b&port=1,2": {"dbname": "shop", "host": "a,b", "port": "1,2"},
    "h/shop?options=-c+search_path=a,b": {
        "host": "h",
        "dbname": "shop",
        "options": "-c search_path=a,b",
    },
    "[::1]:5433": {"host": "::1", "port": "5433"},
    "": {},
}


@pytest.mark.parametrize(("rest", "expected"), SQLALCHEMY.items(), ids=SQLALCHEMY)
def test_a_url_of_sqlalchemy_is_read_by_its_own_rules(rest, expected):
    assert expected == libpq(f"postgresql+psycopg://{rest}")


@pytest.mark.parametrize(
    ("ssl", "mode"), [("true", "require"), ("false", "disable"), ("prefer", "prefer")]
)
def test_what_asyncpg_calls_ssl_is_sslmode(ssl, mode):
    found = parse(f"postgresql+asyncpg://h?ssl={ssl}&prepared_statement_cache_size=0")

    assert {"host": "h", "sslmode": mode} == conninfo_to_dict(found.conninfo)
    assert {"prepare_threshold": None} == found.connect


@pytest.mark.parametrize("scheme", ["mysql", "sqlite", "mysql+pymysql", "https"])
def test_a_url_of_something_else_is_refused(scheme):
    said = refusal(f"{scheme}://me:{SECRET}@h/shop")

    assert said.startswith(f"{scheme.partition('+')[0]}:// is not the address")
    assert SECRET not in said


@pytest.mark.parametrize("scheme", ["prisma", "prisma+postgres"])
def test_prismas_own_service_is_no_server(scheme):
    said = refusal(f"{scheme}://accelerate.example/?api_key={SECRET}")

    assert "Prisma Accelerate" in said
    assert SECRET not in said


# --- secrets --------------------------------------------------------------------------

PLACES = {
    "userinfo": "postgresql://me:{}@h/shop?{}",
    "userinfo with a slash": "postgresql://me:a/{}@h/shop?{}",
    "userinfo with a query": "postgresql://me:a/b?pool_timeout={}@h/shop&{}",
    "userinfo with a name": "postgresql://me:a/b?pool_{}@h/shop&{}",
    "sqlalchemy": "postgresql+psycopg://me:{}@h/shop?{}",
    "query": "postgresql://h/shop?password={}&{}",
    "key of a certificate": "postgresql://h/shop?sslpassword={}&{}",
    "pairs": "host=h password={} {}",
    "quoted pairs": "host=h sslpassword='a b{}' {}",
}

WRONG = ("pool_timeout=x", "pool_max_sise=3", "connection_limit=x", "sslidentity=x")


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_an_error_has_no_password_in_it(place, wrong):
    assert SECRET not in refusal(place.format(SECRET, wrong))


def test_what_may_be_the_end_of_a_password_is_not_shown():
    hidden = "(not shown, for an @ follows: is it a password that is not escaped?)"

    assert f"pool_timeout must be a number of seconds, not what it is {hidden}" == (
        refusal(f"postgresql://me:a/b?pool_timeout={SECRET}@h")
    )
    assert f"a name that begins with pool_ is no parameter of the pool {hidden}" == (
        refusal(f"postgresql://me:a/b?pool_{SECRET}@h")
    )


@pytest.mark.parametrize("wrong", WRONG)
def test_an_error_about_a_dictionary_has_no_password_in_it(wrong):
    name, _, value = wrong.partition("=")
    options = {"sslpassword": SECRET, name: value}

    assert SECRET not in refusal({"password": SECRET, **options})
    assert SECRET not in refusal({**DJANGO, "PASSWORD": SECRET, "OPTIONS": options})


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_what_was_read_does_not_show_itself(place):
    try:
        found = parse(place.format(SECRET, "pool_max_size=3"))
    except ValueError:
        return  # a name in a password that is not escaped

    assert SECRET not in repr(found)
    assert SECRET not in str(found.origins)


# --- any ------------------------------------------------------------------------------

KEYWORDS = sorted(o.keyword.decode() for o in Conninfo.get_defaults())
TEXTS = st.text(
    st.one_of(
        st.sampled_from(" '\"\\=&?@:/%+\t\n[],#"),
        st.characters(exclude_categories=("Cs",), exclude_characters="\0"),
    ),
    max_size=12,
)
LIBPQ = st.dictionaries(st.sampled_from(KEYWORDS), TEXTS, max_size=6)
OURS = st.dictionaries(
    st.sampled_from([f"pool_{name}" for name in VALUES]),
    st.just("1"),
    max_size=4,
).filter(lambda ours: "pool_nested" not in ours)

many = settings(max_examples=300, deadline=None)


def as_pairs(parameters):
    return make_conninfo(**parameters)


def as_uri(parameters):
    query = "&".join(f"{k}={quote(v, safe='')}" for k, v in parameters.items())
    return f"postgresql://?{query}"


def spliced(dsn, ours):
    """Put parameters of the pool in front of the others."""
    if "://" in dsn:
        more = "".join(f"{k}={v}&" for k, v in ours.items())
        return dsn.replace("?", f"?{more}", 1)
    return "".join(f"{k} = '{v}' " for k, v in ours.items()) + dsn


@many
@given(LIBPQ, OURS, st.sampled_from([as_pairs, as_uri]))
def test_no_parameter_of_libpqs_is_lost(parameters, ours, write):
    dsn = write(parameters)

    found = parse(spliced(dsn, ours))

    assert conninfo_to_dict(dsn) == conninfo_to_dict(found.conninfo)
    assert {name.removeprefix("pool_") for name in ours} == set(found.arguments)


@many
@given(LIBPQ, OURS)
def test_no_parameter_of_libpqs_in_a_dictionary_is_lost(parameters, ours):
    found = parse({**parameters, **ours})

    assert parameters == conninfo_to_dict(found.conninfo)
    assert {name.removeprefix("pool_") for name in ours} == set(found.arguments)


@many
@given(LIBPQ)
def test_options_are_added_to_those_that_there_are(parameters):
    parameters.pop("sslcert", None)  # Prisma means another one
    found = libpq({**parameters, "schema": "shop"})

    assert found.pop("options").endswith(parameters.pop("options", '"shop"'))
    assert parameters == found


@many
@given(TEXTS.map(lambda text: f"user={text}"), st.booleans())
def test_pairs_are_told_apart_as_libpq_does(text, spaced):
    try:
        expected = conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        assume(False)

    equals = " = " if spaced else "="

    assert expected == libpq(f"pool_timeout{equals}5 {text}")


@many
@given(TEXTS, TEXTS, st.sampled_from(sorted(PLACES.values())), st.sampled_from(WRONG))
def test_no_error_has_a_password_in_it_that_should_have_been_escaped(
    before, after, place, wrong
):
    said = ""
    try:
        parse(place.format(f"{before}{SECRET}{after}", wrong))
    except ValueError as error:
        said = str(error)

    assert SECRET not in said
