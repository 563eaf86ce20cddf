"""A database backend for Django: `ENGINE = "edgepool.django"`.

The one for PostGIS is `edgepool.django.postgis`. `"edgepool.django"` may be one of the
`INSTALLED_APPS`, too: then Django's system checks look at the settings.
"""

from __future__ import annotations

try:
    import django as _django  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ImportError as error:
    raise ImportError(
        "edgepool.django needs Django: pip install 'edgepool[django]'"
    ) from error

from ._direct import direct

__all__ = ["direct"]
