"""What tests of one colour and then the other ask for; see `support.pg_fixtures`."""

from support.interrupt import own_background
from support.pg_fixtures import (
    bouncer,
    colour,
    guarded,
    proxy,
    pytest_pyfunc_call,
    role,
    sessions,
)

__all__ = [
    "bouncer",
    "colour",
    "guarded",
    "own_background",
    "proxy",
    "pytest_pyfunc_call",
    "role",
    "sessions",
]
