"""What tests of one colour and then the other ask for; see `support.pg_fixtures`."""

from support.interrupt import own_background
from support.pg_fixtures import *  # noqa: F403, pytest finds them by their names
from support.refused import fake, nobody, start_fake

__all__ = ["fake", "nobody", "own_background", "start_fake"]
