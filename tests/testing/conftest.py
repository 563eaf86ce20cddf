"""What tests of one colour and then the other ask for; see `support.pg_fixtures`."""

from __future__ import annotations

import itertools

import pytest

from edgepool.testing import AsyncTransactionalPool, TransactionalPool
from support.parity import entered
from support.pg_fixtures import *  # noqa: F403, pytest finds them by their names

_numbers = itertools.count(1)


@pytest.fixture
def table(admin):
    """A table of the test's own, with unique numbers, and none in it."""
    name = f"testing_{next(_numbers)}"
    admin.execute(f"create table {name} (x int primary key)")
    yield name
    admin.execute(f"drop table {name}")


@pytest.fixture
def transactional(colour, conninfo):
    """Make a transactional pool and enter it: a context manager."""

    def make(**arguments):
        cls = AsyncTransactionalPool if colour.asynchronous else TransactionalPool
        arguments = {"min_size": 1, "max_size": 10, **arguments}
        return entered(cls(arguments.pop("conninfo", conninfo), **arguments))

    return make
