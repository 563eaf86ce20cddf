"""Run Django's own tests on Django's backend, with its pool on, and on edgepool's.

Prints what passes on the former and not on the latter, and fails if there is anything.
The tests are in Django's sdist, which pip downloads, in the release that is installed.

    python tests/integrations/django/suite [label ...]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path

import django

from edgepool.testing import PostgresServer

LABELS = (
    *("backends", "migrations", "test_runner", "test_utils"),
    *("transaction_hooks", "transactions"),
)
ENGINES = {"stock": "django.db.backends.postgresql", "edgepool": "edgepool.django"}
HERE = Path(__file__).parent


def sdist(directory):
    """Give the tests of the installed Django."""
    version = django.__version__
    download = ("download", "--quiet", "--no-deps", "--no-binary", "django")
    subprocess.run(
        [sys.executable, "-m", "pip", *download, f"django=={version}"],
        cwd=directory,
        check=True,
    )
    (archive,) = Path(directory).glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(directory, filter="data")
    return Path(directory, archive.name.removesuffix(".tar.gz"), "tests")


def start(name, tests, server, labels, parallel):
    """Start the tests on one of the backends."""
    results = tests / f"{name}.json"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        "SUITE_ENGINE": ENGINES[name],
        "SUITE_NAME": name,
        "SUITE_HOST": server.host,
        "SUITE_PORT": str(server.port),
        "SUITE_USER": server.user,
        "SUITE_RESULTS": str(results),
    }
    command = [sys.executable, "runtests.py", "--settings=suite_settings", "--noinput"]
    with Path(tests, f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"--parallel={parallel}", *labels],
            cwd=tests,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return process, results, Path(log.name)


def outcomes(name, process, results, log, started):
    """Wait for the tests on one of the backends, and give each one's outcome."""
    process.wait()
    if not results.exists():
        sys.exit(f"{name}: no results\n{log.read_text()}")
    found = json.loads(results.read_text())
    seconds = time.monotonic() - started
    counts = ", ".join(f"{n} {kind}" for kind, n in Counter(found.values()).items())
    print(f"{name:>8}: {len(found)} tests in {seconds:.0f} s: {counts}", flush=True)
    return found


def main():
    """Run them, compare, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", nargs="*", default=LABELS)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--log", help="directory for the logs")
    arguments = parser.parse_args()
    print(f"Django {django.__version__}: {' '.join(arguments.labels)}", flush=True)
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as directory,
        PostgresServer(settings={"fsync": "off"}) as server,
    ):
        tests = sdist(directory)
        started_ = {
            name: start(name, tests, server, arguments.labels, arguments.parallel)
            for name in ENGINES
        }
        found = {
            name: outcomes(name, *began, started) for name, began in started_.items()
        }
        if arguments.log:
            for name in ENGINES:
                log = tests / f"{name}.log"
                Path(arguments.log, log.name).write_text(log.read_text())
    stock, ours = found["stock"], found["edgepool"]
    lost = {t: ours.get(t) for t, o in stock.items() if o == "passed" != ours.get(t)}
    won = [t for t, o in ours.items() if o == "passed" != stock.get(t)]
    for test, outcome in sorted(lost.items()):
        print(f"lost: {test}: {outcome}")
    for test in sorted(won):
        print(f" won: {test}: {stock.get(test)}")
    print(f"{len(lost)} lost, {len(won)} won")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
