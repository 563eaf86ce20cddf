"""Have pyright say whether the types of public modules are complete.

Down to what they refer to in the module itself: what is a pool besides has its pool's
types, of which some are psycopg_pool's.

    python tests/typing/complete.py edgepool.testing
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def incomplete(module: str) -> list[str]:
    """Return what is not known of a module without that anybody infers it."""
    options = ("--pythonpath", sys.executable, "--ignoreexternal", "--outputjson")
    command = [sys.executable, "-m", "pyright", *options, "--verifytypes", module]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    report: dict[str, Any] = json.loads(run.stdout)["typeCompleteness"]
    symbols = [s for s in report["symbols"] if s["name"].startswith(f"{module}.")]
    if not symbols:
        return [f"{module}: pyright found nothing in it"]
    return [
        f"{symbol['name']}: {said['message']}"
        for symbol in symbols
        for said in symbol["diagnostics"]
        if not said["message"].startswith(("Type of base class", "Type of metaclass"))
    ]


if __name__ == "__main__":
    missing = [line for module in sys.argv[1:] for line in incomplete(module)]
    print("\n".join(missing) or f"complete: {', '.join(sys.argv[1:])}")
    sys.exit(bool(missing))
