"""What Django looks for in a backend: `DatabaseWrapper`."""

from typing import Any

from django.contrib.gis.db.backends.postgis import base

from .._wrapper import PooledWrapper


class DatabaseWrapper(PooledWrapper, base.DatabaseWrapper):
    """Django's PostGIS backend, with edgepool's pool."""

    def _configure_connection(self, connection: Any) -> bool:
        # Once for each connection of a pool: what is set here is there at each borrow.
        self.register_geometry_adapters(connection)
        inherited: Any = super()
        changed: bool = inherited._configure_connection(connection)
        return changed

    def register_geometry_adapters(
        self, pg_connection: Any, clear_caches: bool = False
    ) -> None:
        """See Django, which does so at each borrow. Not what is there already."""
        mine: Any = self
        known = mine._type_infos["geometry"].get(self.alias)
        there = pg_connection.adapters.types.get("geometry")
        if clear_caches or known is None or known is not there:
            super().register_geometry_adapters(pg_connection, clear_caches)
