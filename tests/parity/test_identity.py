"""What edgepool's classes are: psycopg_pool's to anybody who asks, ours to who calls.

Nothing here needs a server.
"""

from __future__ import annotations

import inspect
from typing import Generic

import psycopg
import psycopg_pool
import pytest

import edgepool
from support.parity import CLASSES

# They are psycopg_pool's engine, and no part of its documentation.
INTERNALS = {"run_task", "schedule_task", "worker"}

ERRORS = ("PoolClosed", "PoolTimeout", "TooManyRequests")
CODE = (classmethod, property, staticmethod)

classes = pytest.mark.parametrize("name", CLASSES)


def is_code(attribute):
    return inspect.isfunction(attribute) or isinstance(attribute, CODE)


def code_of(cls):
    """Give what runs when somebody uses the class, as (where defined, name, code)."""
    return [
        (base, name, attribute)
        for base in cls.__mro__
        if base not in (object, Generic)
        for name, attribute in vars(base).items()
        if is_code(attribute)
    ]


def parameters(function):
    """Give what a caller may rely on: names, kinds and defaults, in order."""
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]


def public_methods(name):
    reference = getattr(psycopg_pool, name)
    return sorted(
        attribute
        for attribute in dir(reference)
        if not attribute.startswith("_")
        and attribute not in INTERNALS
        and callable(getattr(reference, attribute))
    )


METHODS = [(name, method) for name in CLASSES for method in public_methods(name)]

methods = pytest.mark.parametrize(("name", "method"), METHODS)


@classes
def test_an_edgepool_is_an_instance_of_the_class_of_psycopg_pool(name):
    pool = getattr(edgepool, name)(open=False)

    assert isinstance(pool, getattr(psycopg_pool, name))


@pytest.mark.parametrize("prefix", ["", "Async"])
def test_a_null_pool_is_a_pool(prefix):
    pool = getattr(edgepool, f"{prefix}NullConnectionPool")(open=False)

    assert isinstance(pool, getattr(edgepool, f"{prefix}ConnectionPool"))


@classes
def test_no_code_of_psycopg_pool_is_reached(name):
    ours = getattr(edgepool, name)

    reached = [
        f"{base.__name__}.{attribute}"
        for base, attribute, code in code_of(getattr(psycopg_pool, name))
        if inspect.getattr_static(ours, attribute, None) is code
    ]

    assert [] == reached


@classes
def test_every_public_attribute_of_psycopg_pool_is_there(name):
    theirs, ours = getattr(psycopg_pool, name), getattr(edgepool, name)

    missing = [
        attribute
        for attribute in dir(theirs)
        if not attribute.startswith("_") and not hasattr(ours, attribute)
    ]

    assert [] == missing


@classes
def test_the_constructor_takes_the_same_arguments(name):
    theirs = parameters(getattr(psycopg_pool, name))
    ours = parameters(getattr(edgepool, name))

    assert theirs == ours[: len(theirs)]


@classes
def test_what_edgepool_adds_to_the_constructor_is_named_and_optional(name):
    theirs = parameters(getattr(psycopg_pool, name))
    added = parameters(getattr(edgepool, name))[len(theirs) :]

    for _, kind, default in added:
        assert kind is inspect.Parameter.KEYWORD_ONLY
        assert default is not inspect.Parameter.empty


@methods
def test_every_method_takes_the_same_arguments(name, method):
    theirs = parameters(getattr(getattr(psycopg_pool, name), method))
    ours = parameters(getattr(getattr(edgepool, name), method))

    assert theirs == ours[: len(theirs)]
    for _, kind, default in ours[len(theirs) :]:
        assert kind is inspect.Parameter.KEYWORD_ONLY
        assert default is not inspect.Parameter.empty


@classes
@pytest.mark.parametrize("method", ["get_stats", "pop_stats", "connection"])
def test_what_need_not_be_awaited_is_no_coroutine_function(name, method):
    assert not inspect.iscoroutinefunction(getattr(getattr(edgepool, name), method))


@classes
def test_a_check_needs_no_pool(name):
    check = inspect.getattr_static(getattr(edgepool, name), "check_connection")

    assert isinstance(check, staticmethod)


@classes
def test_the_classes_take_the_type_of_their_connections(name):
    cls = getattr(edgepool, name)
    connection = psycopg.AsyncConnection if "Async" in name else psycopg.Connection

    assert isinstance(cls[connection](open=False), cls)


@pytest.mark.parametrize("name", psycopg_pool.__all__)
def test_every_public_name_of_the_package_is_there(name):
    assert name in edgepool.__all__


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_an_operational_error_of_the_driver(name):
    assert issubclass(getattr(edgepool, name), psycopg.OperationalError)


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_caught_by_the_name_that_psycopg_pool_gives_it(name):
    assert issubclass(getattr(edgepool, name), getattr(psycopg_pool, name))


@pytest.mark.parametrize("one", ERRORS)
@pytest.mark.parametrize("other", ERRORS)
def test_no_error_is_taken_for_another(one, other):
    related = issubclass(getattr(edgepool, one), getattr(psycopg_pool, other))

    assert (one == other) is related
