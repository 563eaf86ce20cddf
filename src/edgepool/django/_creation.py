"""Databases for tests: past an external pooler, and dropped without a quarrel."""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import creation

from . import _pools
from ._settings import past_pooler


class DatabaseCreation(creation.DatabaseCreation):
    """Django's, with `OPTIONS["direct"]`, and without anybody in the way of a DROP."""

    # The settings as they were before the tests.
    _before: dict[str, Any] | None = None

    # Not `create_test_db`: a warning of Django's names the frame that calls that.
    def _create_test_db(
        self, verbosity: int, autoclobber: bool, keepdb: bool = False
    ) -> str:
        self.connection.close_pool()
        self._before = dict(self.connection.settings_dict)
        self._lead_past_pooler()
        inherited: Any = super()
        name: str = inherited._create_test_db(verbosity, autoclobber, keepdb)
        return name

    def set_as_test_mirror(self, primary_settings_dict: Any) -> None:
        """See Django."""
        self._lead_past_pooler()
        super().set_as_test_mirror(primary_settings_dict)

    def destroy_test_db(
        self, old_database_name: str | None = None, *args: Any, **kwargs: Any
    ) -> None:
        """See Django."""
        super().destroy_test_db(old_database_name, *args, **kwargs)
        if old_database_name is not None and self._before is not None:
            self.connection.settings_dict.update(self._before)

    def _lead_past_pooler(self) -> None:
        # In place: the wrappers of all threads share it, and so does Django itself.
        # The database for tests has its name by now.
        settings = self.connection.settings_dict
        settings.update({**past_pooler(settings), "NAME": settings["NAME"]})

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
