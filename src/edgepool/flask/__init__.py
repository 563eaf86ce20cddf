"""Pools of connections in Flask applications."""

try:
    import flask as _flask  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ModuleNotFoundError as error:
    if error.name != "flask":
        raise
    raise ImportError(
        "edgepool.flask needs Flask: pip install 'edgepool[flask]'", name="flask"
    ) from None

from ._extension import EdgePool

__all__ = ["EdgePool"]
