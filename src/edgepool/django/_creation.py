"""Databases for tests: past an external pooler, and dropped without a quarrel."""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.backends.postgresql import creation

from . import _pools
from ._settings import direct_alias, past_pooler


class DatabaseCreation(creation.DatabaseCreation):
    """Django's, with `OPTIONS["direct"]`, and without anybody in the way of a DROP."""

    # The settings as they were before the tests.
    _before: dict[str, Any] | None = None
    # The database that is the direct way, if one is, and its settings at that time.
    _way: tuple[str, dict[str, Any]] | None = None
    # The settings of the database that this one mirrors.
    _primary: Any = None

    def test_db_signature(self) -> tuple[Any, ...]:
        """See Django. The database that is the direct way has the same for tests."""
        alias = direct_alias(self.connection.settings_dict)
        of: Any = super() if alias is None else connections[alias].creation
        signature: tuple[Any, ...] = of.test_db_signature()
        return signature

    # Not `create_test_db`: a warning of Django's names the frame that calls that.
    def _create_test_db(
        self, verbosity: int, autoclobber: bool, keepdb: bool = False
    ) -> str:
        self.connection.close_pool()
        if (alias := direct_alias(self.connection.settings_dict)) is not None:
            self._way = alias, dict(connections.settings[alias])
        self._lead_past_pooler()
        inherited: Any = super()
        name: str = inherited._create_test_db(verbosity, autoclobber, keepdb)
        return name

    def set_as_test_mirror(self, primary_settings_dict: Any) -> None:
        """See Django."""
        self._primary = primary_settings_dict
        self._lead_past_pooler()
        super().set_as_test_mirror(primary_settings_dict)

    def destroy_test_db(
        self, old_database_name: str | None = None, *args: Any, **kwargs: Any
    ) -> None:
        """See Django. In the end the settings are as before, those of mirrors too."""
        if old_database_name is not None:
            self.connection.close_pool()
            if self._way is not None:  # it may have Django's pool
                direct: Any = connections[self._way[0]]
                direct.close()
                direct.close_pool()
        super().destroy_test_db(old_database_name, *args, **kwargs)
        if old_database_name is None:
            return
        self._lead_as_before()
        for other in connections.all(initialized_only=True):
            mirror = other.creation
            if (
                isinstance(mirror, DatabaseCreation)
                and mirror._primary is self.connection.settings_dict
            ):
                mirror._lead_as_before()

    def _lead_past_pooler(self) -> None:
        # In place: the wrappers of all threads share it, and so does Django itself.
        # The database for tests has its name by now.
        settings = self.connection.settings_dict
        if self._before is None:
            self._before = dict(settings)
        settings.update({**past_pooler(settings), "NAME": settings["NAME"]})

    def _lead_as_before(self) -> None:
        self.connection.close_pool()  # else nobody would find it any more
        if self._way is not None:
            alias, settings = self._way
            connections.settings[alias].update(settings)
        self.connection.settings_dict.update(self._before or {})
        self._before = self._way = self._primary = None

    def _clone_test_db(self, *args: Any, **kwargs: Any) -> None:
        self.connection.close()
        _pools.cut_off(self.connection.settings_dict)
        inherited: Any = super()
        inherited._clone_test_db(*args, **kwargs)

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        settings = {**self.connection.settings_dict, "NAME": test_database_name}
        _pools.cut_off(settings)
        inherited: Any = super()
        inherited._destroy_test_db(test_database_name, verbosity)
