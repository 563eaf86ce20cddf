"""The application, which is there for its system checks only."""

from django.apps import AppConfig
from django.core import checks

from ._checks import check_databases


class EdgepoolConfig(AppConfig):
    """Have the settings of all databases checked whenever Django checks something."""

    name = "edgepool.django"
    label = "edgepool"
    verbose_name = "edgepool"

    def ready(self) -> None:
        """Register the check."""
        checks.register(check_databases)
