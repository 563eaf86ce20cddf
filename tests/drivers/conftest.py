"""The two worlds in which a test of the drivers runs."""

from __future__ import annotations

import gc
import inspect
from random import Random

import pytest
from drivers.world import TaskWorld, ThreadWorld


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test that asks for a world in that world."""
    world = pyfuncitem.funcargs.get("world")
    if world is None or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    world.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    gc.collect(1)  # what the finalisers of young objects warn of belongs to this test
    return True


@pytest.fixture(params=[ThreadWorld, TaskWorld], ids=["threads", "tasks"])
def world(request, monkeypatch):
    return request.param(monkeypatch)


@pytest.fixture
def chaos(monkeypatch):
    """Run scenarios in worlds of threads that lose their turn at any line.

    A scenario is a coroutine function; it is given the world, and dice.
    """

    def run(scenario, seeds):
        for seed in seeds:
            dice = Random(seed)
            with monkeypatch.context() as patches:
                world = ThreadWorld(patches, dice)
                try:
                    world.run(scenario(world, dice))
                except BaseException as error:
                    error.add_note(f"seed {seed}") if hasattr(error, "add_note") else 0
                    raise

    return run
