"""What tests of one colour and then the other ask for; see `support.pg_fixtures`.

And a table for what is to be committed, or not.
"""

import pytest

from support.pg import application_name
from support.pg_fixtures import *  # noqa: F403, pytest finds them by their names


@pytest.fixture
def table(admin, conninfo):
    """A table of the test's own, with a check at the commit; gives its name."""
    name = f'"{application_name(conninfo)}"'
    admin.execute(f"create table {name} (x int unique deferrable initially deferred)")
    yield name
    admin.execute(f"drop table {name}")


@pytest.fixture
def rows(admin, table):
    """Give what has been committed, as a new list each time."""
    return lambda: [x for (x,) in admin.execute(f"select x from {table} order by x")]
