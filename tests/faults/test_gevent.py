"""Under gevent's monkey patching: greenlets wait, time out and are killed.

A smoke test, in an interpreter of its own, because the patches are for ever.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import edgepool
from support.pg import application_name, sessions_of
from support.rounds import rounds

SOURCES = [str(Path(edgepool.__file__).parents[1]), str(Path(__file__).parents[1])]
GUARD = 100.0

PROGRAM = """
    from gevent import monkey

    monkey.patch_all()

    import gc
    import sys
    from random import Random

    import gevent
    from edgepool import ConnectionPool, PoolTimeout
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from support.conservation import conserved
    from support.parity import run_blocking

    conninfo, rounds = sys.argv[1], int(sys.argv[2])
    dice = Random(1)
    pool = ConnectionPool(conninfo, min_size=1, max_size=3, timeout=20.0, open=True)
    served = cut_short = 0


    class Stopped(BaseException):
        pass


    class Server:
        def conninfo_for(self, **parameters):
            return make_conninfo(conninfo, **parameters)


    def use():
        global served, cut_short
        try:
            with gevent.Timeout(dice.random() * 0.05):
                with pool.connection() as conn:
                    conn.execute("select pg_sleep(0.001)")
                    served += 1
        except (gevent.Timeout, Stopped):
            cut_short += 1


    # The hub goes on while greenlets wait for a connection: nothing blocks the thread.
    beats = 0


    def beat():
        global beats
        while True:
            gevent.sleep(0.005)
            beats += 1


    heart = gevent.spawn(beat)
    leases = [pool.connection() for _ in range(3)]
    for lease in leases:
        lease.__enter__()
    waiting = gevent.spawn(pool.getconn)
    gevent.sleep(0.1)
    assert beats >= 5, beats
    assert pool.statistics().waiting == 1
    try:
        pool.getconn(timeout=0.05)
    except PoolTimeout:
        pass
    else:
        raise AssertionError("no timeout")
    leases[0].__exit__(None, None, None)
    pool.putconn(waiting.get(timeout=10))
    for lease in leases[1:]:
        lease.__exit__(None, None, None)

    for _ in range(rounds):
        greenlets = [gevent.spawn(use) for _ in range(20)]
        for greenlet in greenlets[:5]:
            greenlet.kill(Stopped, block=False)  # some have not even begun
        gevent.sleep(dice.random() * 0.005)
        for greenlet in greenlets[5:8]:
            greenlet.kill(block=False)
        gevent.joinall(greenlets, raise_error=False)
    assert served and cut_short, (served, cut_short, pool.statistics())

    gc.collect()  # what was in the hands of the killed only
    name = conninfo_to_dict(conninfo)["application_name"]
    run_blocking(conserved(pool, Server(), name))
    heart.kill()
    pool.close()
    assert pool.statistics().size == 0
    print("the end")
"""


def test_greenlets_lose_nothing_and_block_nobody(server, conninfo):
    run = subprocess.run(
        [sys.executable, "-c", dedent(PROGRAM), conninfo, str(rounds(15))],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(SOURCES)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=GUARD,
    )

    assert "the end" in run.stdout, run.stderr
    assert 0 == run.returncode
    assert 0 == sessions_of(server, application_name(conninfo))
