"""Threads and tasks have the same pool: the same names, parameters and words.

What is awaited on the one side is called on the other; nothing else is different.
"""

from __future__ import annotations

import inspect

import psycopg
import pytest

import edgepool
from edgepool.psycopg import (
    AsyncConnectionLease,
    AsyncDirectConnection,
    AsyncLazyLease,
    ConnectionLease,
    DirectConnection,
    LazyLease,
)
from edgepool.testing import (
    AsyncFakeAdapter,
    AsyncTransactionalPool,
    FakeAdapter,
    TransactionalPool,
)

PAIRS = {
    "Pool": (edgepool.Pool, edgepool.AsyncPool),
    "ConnectionPool": (edgepool.ConnectionPool, edgepool.AsyncConnectionPool),
    "NullConnectionPool": (
        edgepool.NullConnectionPool,
        edgepool.AsyncNullConnectionPool,
    ),
    "Lease": (edgepool.Lease, edgepool.AsyncLease),
    "ConnectionLease": (ConnectionLease, AsyncConnectionLease),
    "LazyLease": (LazyLease, AsyncLazyLease),
    "DirectConnection": (DirectConnection, AsyncDirectConnection),
    "Listener": (edgepool.Listener, edgepool.AsyncListener),
    "Adapter": (edgepool.Adapter, edgepool.AsyncAdapter),
    "FakeAdapter": (FakeAdapter, AsyncFakeAdapter),
    "TransactionalPool": (TransactionalPool, AsyncTransactionalPool),
}

# A protocol of Python's own has two names.
TWO_NAMES = {
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
    "__iter__": "__aiter__",
    "__next__": "__anext__",
}

# Words that name the same thing on either side. Longer ones first.
TWO_WORDS = (
    ("AsyncConnectFailedCB", "ConnectFailedCB"),
    ("AsyncConninfoParam", "ConninfoParam"),
    ("AsyncKwargsParam", "KwargsParam"),
    ("AsyncCredentialsProvider", "CredentialsProvider"),
    ("AsyncConnectionCB", "ConnectionCB"),
    ("AsyncConnection", "Connection"),
    ("AsyncConnectionPool", "ConnectionPool"),
    ("AsyncConnectionLease", "ConnectionLease"),
    ("AsyncLazyLease", "LazyLease"),
    ("AsyncLease", "Lease"),
    ("AsyncReleased", "Released"),
    ("AsyncRowFactory", "RowFactory"),
    ("AsyncCursor", "Cursor"),
    ("AsyncDirectConnection", "DirectConnection"),
    ("AsyncListener", "Listener"),
    ("TaskDriver", "ThreadDriver"),
    ("ACT", "CT"),
)

pairs = pytest.mark.parametrize(("sync", "asynchronous"), PAIRS.values(), ids=PAIRS)


def public(cls):
    """Give the names that are for users, as they are for threads."""
    twins = {twin: name for name, twin in TWO_NAMES.items()}
    names = {twins.get(name, name) for name in dir(cls)}
    return {n for n in names if not n.startswith("_") or n in TWO_NAMES}


def methods():
    for pair, (sync, asynchronous) in PAIRS.items():
        for name in sorted(public(sync)):
            twin = name if hasattr(asynchronous, name) else TWO_NAMES.get(name, name)
            if inspect.isroutine(getattr(sync, name)):
                yield pytest.param(
                    inspect.getattr_static(sync, name),
                    inspect.getattr_static(asynchronous, twin),
                    id=f"{pair}.{name}",
                )


each_method = pytest.mark.parametrize(("sync", "asynchronous"), [*methods()])


def function_of(method):
    return getattr(method, "__func__", method)


def annotation(value):
    text = value if isinstance(value, str) else inspect.formatannotation(value)
    for asynchronous, sync in TWO_WORDS:
        text = text.replace(asynchronous, sync)
    return text


def signature(method):
    """Give what a caller may rely on: names, kinds, defaults, types."""
    signature = inspect.signature(function_of(method))
    parameters = [
        (p.name, p.kind, default(p), annotation(p.annotation))
        for p in signature.parameters.values()
    ]
    return parameters, annotation(signature.return_annotation)


def default(parameter):
    twins = {psycopg.AsyncConnection: psycopg.Connection}
    try:
        return twins.get(parameter.default, parameter.default)
    except TypeError:  # not hashable
        return parameter.default


@pairs
def test_both_have_the_same_public_names(sync, asynchronous):
    assert public(sync) == public(asynchronous)


@pairs
def test_both_are_made_with_the_same_arguments(sync, asynchronous):
    assert signature(sync.__init__) == signature(asynchronous.__init__)


@each_method
def test_both_methods_have_the_same_signature(sync, asynchronous):
    if inspect.iscoroutinefunction(function_of(sync)):
        pytest.fail("a method for threads is a coroutine function")

    assert signature(sync) == signature(asynchronous)


@each_method
def test_both_methods_are_of_the_same_kind(sync, asynchronous):
    assert isinstance(sync, staticmethod) == isinstance(asynchronous, staticmethod)


@pytest.mark.parametrize("name", ["Pool", "ConnectionPool", "NullConnectionPool"])
def test_what_needs_no_waiting_needs_no_await(name):
    _, asynchronous = PAIRS[name]
    awaited = {
        name
        for name in public(asynchronous)
        if inspect.iscoroutinefunction(getattr(asynchronous, name, None))
    }
    psycopgs = {
        *("check_connection", "getconn", "putconn", "switch"),
        *("execute", "fetch_all", "fetch_one", "fetch_value"),
    }
    if name == "Pool":
        psycopgs = set()

    assert {
        "check",
        "close",
        "drain",
        "open",
        "reconnect_failed",
        "resize",
        "wait",
    } | psycopgs == awaited


def test_every_public_class_for_threads_has_its_twin():
    asynchronous = {n for n in edgepool.__all__ if n.startswith("Async")}
    twins = {f"Async{n}" for n in edgepool.__all__} & set(dir(edgepool))

    assert twins == asynchronous
    assert {name for name in PAIRS if name in edgepool.__all__} == {
        name.removeprefix("Async") for name in asynchronous
    }
