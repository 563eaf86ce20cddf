"""What tests of one colour and then the other ask for; see `support.pg_fixtures`."""

from support.pg_fixtures import *  # noqa: F403, pytest finds them by their names
