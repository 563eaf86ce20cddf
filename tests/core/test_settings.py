"""The limits of each setting, and how a setting out of range is refused."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError

import pytest

from edgepool._core import NEVER, Settings

LIMITS = {
    "min_size": 0,
    "max_size": 1,
    "timeout": 0,
    "max_waiting": 0,
    "max_lifetime": 0,
    "max_idle": 0,
    "max_connecting": 1,
    "check_after": 0,
    "probe_after": 0,
    "stagger": 0,
    "reconnect_timeout": 0,
    "shed_target": 0,
    "shed_interval": 0,
}

NUMBERS = ("min_size", "max_size", "max_waiting", "max_connecting")
TIMES = [name for name in LIMITS if name not in NUMBERS]


def make(name, value):
    return Settings(**{"min_size": 0, name: value})


@pytest.mark.parametrize(("name", "limit"), LIMITS.items())
def test_a_setting_may_be_at_its_limit(name, limit):
    assert limit == getattr(make(name, limit), name)


@pytest.mark.parametrize(("name", "limit"), LIMITS.items())
def test_a_setting_below_its_limit_is_refused_with_name_limit_and_value(name, limit):
    message = f"{name} must be at least {limit}, not {limit - 1}"

    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make(name, limit - 1)


@pytest.mark.parametrize("name", TIMES)
def test_a_time_may_be_infinite(name):
    assert NEVER == getattr(make(name, NEVER), name)


@pytest.mark.parametrize("name", TIMES)
def test_a_time_that_is_no_number_is_refused(name):
    with pytest.raises(ValueError, match=rf"^{name} must be at least 0, not nan$"):
        make(name, float("nan"))


def test_max_size_may_be_min_size():
    assert 3 == Settings(min_size=3, max_size=3).max_size


def test_a_max_size_below_min_size_is_refused_with_both():
    message = "max_size must be greater or equal than min_size (3), not 2"

    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Settings(min_size=3, max_size=2)


def test_the_first_error_in_the_order_of_the_signature_is_the_one_told():
    with pytest.raises(ValueError, match=r"^min_size"):
        Settings(min_size=-1, max_size=-2, timeout=-3)


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        Settings().min_size = 2


def test_the_defaults_are_psycopg_pools():
    settings = Settings()

    assert (4, 4, 30.0, 0, 3600.0, 600.0, 300.0) == (
        settings.min_size,
        settings.max_size,
        settings.timeout,
        settings.max_waiting,
        settings.max_lifetime,
        settings.max_idle,
        settings.reconnect_timeout,
    )


def test_the_defaults_that_psycopg_pool_does_not_have():
    settings = Settings()

    assert (10, 0.0, NEVER, 0.0, None, 1.0, True) == (
        settings.max_connecting,
        settings.check_after,
        settings.probe_after,
        settings.stagger,
        settings.shed_target,
        settings.shed_interval,
        settings.keep_idle,
    )


@pytest.mark.parametrize("name", ["min_size", "max_size", "max_waiting"])
def test_a_number_of_things_is_a_whole_number(name):
    with pytest.raises(ValueError, match=rf"^{name} must be a whole number, not 4.5$"):
        Settings(**{"max_size": 5, name: 4.5})


def test_what_is_no_number_is_refused_with_its_name():
    with pytest.raises(TypeError, match=r"^timeout must be a number, not '5'$"):
        Settings(timeout="5")
