"""The command: ``python -m benchmarks [--only NAME ...] [--rounds N] [--quick]``."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

from . import machine, report
from .model import Bench, Row
from .rows import ALL
from .runner import Outcome, run_row
from .server import running_server


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure edgepool against its peers, interleaved in one run.",
        epilog="Rows: " + ", ".join(row.name for row in ALL),
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="run only the rows whose name begins with one of these",
    )
    parser.add_argument(
        "--rounds", type=_positive, metavar="N", help="rounds of every row"
    )
    parser.add_argument(
        "--quick", action="store_true", help="few, short rounds: a look, not a result"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every round to FILE"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {value}")
    return value


def chosen(names: list[str] | None) -> list[Row]:
    """Return the rows to run; exits if a name fits none."""
    if not names:
        return list(ALL)

    for name in names:
        if not any(row.name.startswith(name) for row in ALL):
            known = ", ".join(row.name for row in ALL)
            sys.exit(f"no row is called {name!r}; there are: {known}")
    return [row for row in ALL if row.name.startswith(tuple(names))]


def tell(progress: str) -> None:
    """Show *progress* apart from the result."""
    print(progress, file=sys.stderr, flush=True)


def main() -> None:
    """Run the rows, show each as it is done, then the table."""
    options = arguments()
    rows = chosen(options.only)

    # Pools log what happens to their connections here on purpose: not on the terminal,
    # and without a change of level, which would change what a log call costs them.
    logging.getLogger().addHandler(logging.NullHandler())

    begun = time.monotonic()
    outcomes: list[Outcome] = []
    with running_server() as server:
        bench = Bench(server, options.quick)
        found = machine.inspect(server)
        print(f"{found}\n", flush=True)

        for place, row in enumerate(rows, 1):
            row_begun = time.monotonic()
            outcomes.append(run_row(bench, row, options.rounds))
            took = time.monotonic() - row_begun
            tell(f"[{place}/{len(rows)}] {row.name}: {took:.1f} s")
            print(report.block(outcomes[-1]), flush=True)

    print(report.summary(outcomes))
    print(f"\n{found}\n{time.monotonic() - begun:.0f} s")
    if options.json:
        report.dump(options.json, found, outcomes)


if __name__ == "__main__":
    main()
