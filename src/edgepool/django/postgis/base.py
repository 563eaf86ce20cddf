"""What Django looks for in a backend: `DatabaseWrapper`."""

from django.contrib.gis.db.backends.postgis import base

from .._wrapper import PooledWrapper


class DatabaseWrapper(PooledWrapper, base.DatabaseWrapper):
    """Django's PostGIS backend, with edgepool's pool."""
