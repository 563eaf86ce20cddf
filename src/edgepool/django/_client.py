"""`manage.py dbshell`: past an external pooler."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.backends.postgresql import client

from ._settings import past_pooler


class DatabaseClient(client.DatabaseClient):
    """Django's, with `OPTIONS["direct"]`."""

    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Iterable[str]
    ) -> tuple[list[str], dict[str, str] | None]:
        """Return the command and its environment; see Django."""
        return super().settings_to_cmd_args_env(past_pooler(settings_dict), parameters)
