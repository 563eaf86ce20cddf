"""A function's instance, that does as it is told until its input ends.

    function.py COLOUR KIND CONNINFO [NAME=VALUE ...]

For each line it borrows a connection, and prints which process of the server that was.
At the end nothing may have been lost. It ends without closing its pool.
"""

from __future__ import annotations

import json
import sys

from support.conservation import conserved
from support.parity import lend
from support.pg import COLOURS

COLOUR = COLOURS[sys.argv[1]]
KIND = {"pool": COLOUR.Pool, "null": COLOUR.NullPool}[sys.argv[2]]


async def main():
    arguments = dict(word.split("=") for word in sys.argv[4:])
    pool = KIND(
        sys.argv[3], **{name: json.loads(text) for name, text in arguments.items()}
    )
    for _ in sys.stdin:
        print(await lend(pool), flush=True)
    await conserved(pool, None)


COLOUR.run(main())
