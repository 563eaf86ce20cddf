"""What a platform does with a function: cold starts, concurrent requests, freezes.

    python instances.py

runs as one instance: reads an event from each line, and prints the function's answer.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from typing_extensions import Self


class Instance:
    """A process that serves one request at a time, and is frozen in between."""

    def __init__(self, environment: dict[str, str]) -> None:
        # What `EDGEPOOL_...` variables say here is not meant for the function's pool.
        here = {k: v for k, v in os.environ.items() if not k.startswith("EDGEPOOL_")}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**here, **environment},
        )

    def request(self, event: dict[str, Any]) -> dict[str, Any]:
        """Have it serve a request."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(event) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def freeze(self) -> None:
        """Suspend it."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Have it end by itself."""
        self._process.communicate()


class Fleet:
    """So many instances of the function, each started by its first request."""

    def __init__(self, number: int, environment: dict[str, str]) -> None:
        self._instances = [Instance(environment) for _ in range(number)]
        self._threads = ThreadPoolExecutor(number)

    def requests(self, each: int) -> list[dict[str, Any]]:
        """Have all serve so many requests, all at the same time."""

        def work(instance: Instance) -> list[dict[str, Any]]:
            return [instance.request({"page": "/"}) for _ in range(each)]

        return [a for some in self._threads.map(work, self._instances) for a in some]

    def freeze(self) -> None:
        """Suspend all."""
        for instance in self._instances:
            instance.freeze()

    def thaw(self) -> None:
        """Let all go on."""
        for instance in self._instances:
            instance.thaw()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for instance in self._instances:
            instance.end()
        self._threads.shutdown()


def main() -> None:
    """Be an instance."""
    from function import handler  # the cold start

    for line in sys.stdin:
        try:
            answer = handler(json.loads(line), None)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
