"""`flask edgepool`: what the pools of an application are, and whether they work."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from statistics import median
from time import perf_counter
from typing import Any, Final

import click
from flask import current_app
from flask.cli import AppGroup
from psycopg import Connection
from psycopg.rows import tuple_row

from .. import ConnectionPool
from ._pools import Pools

# To the database: takes a timeout.
Way = Callable[[float], AbstractContextManager[Connection[Any]]]

ROUND_TRIPS: Final = 5

commands = AppGroup("edgepool", help="Look at the application's connection pools.")


@commands.command()
def status() -> None:
    """Show the sizes and the statistics of each pool, in this process."""
    header = [
        *("pool", "min", "max", "size", "in use", "idle", "waiting"),
        *("requests", "errors", "mean wait", "mean use"),
    ]
    table = [header]
    for name, pool in _pools():
        s = pool.statistics()
        counts = [s.size, s.in_use, s.idle, s.waiting, s.requests, s.requests_errors]
        # A null pool's 0 is no limit.
        sizes = [pool.min_size, pool.max_size or "-", *counts]
        each = max(s.requests, 1)
        times = [_milliseconds(t / each) for t in (s.wait_time, s.usage_time)]
        table.append([name, *map(str, sizes), *times])
    _show(table)


@commands.command()
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="How long a connection may take, in seconds.",
)
def check(timeout: float) -> None:
    """Connect with each pool, and say what is there; exit with 1 if one cannot."""
    table = [["pool", "address", "server", "role", "pooler", "connect", "round trip"]]
    errors: list[str] = []
    for name, pool in _pools():
        ways: dict[str, Way] = {name: pool.connection}
        if pool.direct_conninfo is not None:
            ways[f"{name}, direct"] = pool.direct
        for way, connect in ways.items():
            try:
                address, server, role, *times = _look(connect(timeout))
                pooler = _pooler(pool, timeout) if way == name else "-"
            except Exception as error:
                errors.append(f"{way}: {_told(error)}")
            else:
                table.append([way, address, server, role, pooler, *times])
    if len(table) > 1:
        _show(table)
    for text in errors:
        click.echo(text, err=True)
    if errors:
        raise SystemExit(1)


def _pools() -> list[tuple[str, ConnectionPool[Any]]]:
    return [*(Pools.of(current_app) or ())]


def _look(lease: AbstractContextManager[Connection[Any]]) -> list[str]:
    started = perf_counter()
    with lease as conn:
        connected = perf_counter() - started
        info = conn.info
        cursor = conn.cursor(row_factory=tuple_row)
        trips: list[float] = []
        for _ in range(ROUND_TRIPS):
            started = perf_counter()
            cursor.execute("SELECT pg_is_in_recovery()")
            trips.append(perf_counter() - started)
        (in_recovery,) = cursor.fetchone() or (False,)
        return [
            f"{info.host}:{info.port}/{info.dbname}",
            info.parameter_status("server_version") or "-",
            "standby" if in_recovery else "primary",
            _milliseconds(connected),
            _milliseconds(median(trips)),
        ]


def _pooler(pool: ConnectionPool[Any], timeout: float) -> str:
    """Say what is in front of the server; two connections may show more than one."""
    if pool.statistics().pooler == "undetermined" and pool.max_size != 1:
        with pool.connection(timeout), pool.connection(timeout):
            pass
    return pool.statistics().pooler


def _told(error: Exception) -> str:
    """Tell an error in one line, and what has led to it."""
    cause = "" if error.__cause__ is None else f": {error.__cause__}"
    if cause in f": {error}":  # as in what a ConnectFailed says
        cause = ""
    return " ".join(f"{type(error).__name__}: {error}{cause}".split())


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def _show(table: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = zip(row, widths, strict=True)
        click.echo("  ".join(cell.ljust(width) for cell, width in cells).rstrip())
