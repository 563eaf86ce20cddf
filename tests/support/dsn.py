"""What edgepool reads in a DSN, or in what Django has instead of one."""

from __future__ import annotations

import sys

import pytest
from psycopg.conninfo import conninfo_to_dict

from edgepool.psycopg._dsn import parse

SECRET = "hush-hush"

DJANGO = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "shop",
    "USER": "me",
    "PASSWORD": r"it's \ here",
    "HOST": "h",
    "PORT": 5433,
    "CONN_MAX_AGE": 0,
    "TEST": {"NAME": "test_shop"},
}


def libpq(dsn):
    """Give what libpq makes of a DSN after edgepool has read it."""
    return {k: str(v) for k, v in conninfo_to_dict(parse(dsn).conninfo).items()}


def refusal(dsn):
    """Give what is said of a DSN that is refused."""
    # A thread that was interrupted in the midst of something may still be at it.
    before = sys.exc_info()[1]
    with pytest.raises(ValueError, match=r".") as caught:
        parse(dsn)
    error = caught.value

    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is before
    return str(error)
