"""What libraries ask of psycopg_pool's pools beyond what is public.

procrastinate opens the connection on which it listens by itself, with what the pool
connects with.
"""

from __future__ import annotations

import pytest

from edgepool import Credential
from support.parity import result
from support.pg import COLOURS


async def asked(pool):
    """Give what procrastinate asks a pool for."""
    return await result(pool._resolve_conninfo()), await result(pool._resolve_kwargs())


async def test_a_library_connects_as_the_pool_does(colour, role):
    pool = colour.Pool(
        f"{role.conninfo()} pool_max_size=3",
        kwargs={"application_name": "mine"},
        credentials=lambda: Credential(password="right"),
        min_size=0,
    )
    conninfo, kwargs = await asked(pool)
    connection = await result(pool.connection_class.connect(conninfo, **kwargs))
    parameters = connection.info.get_parameters()
    await result(connection.close())

    assert (role.name, "mine") == (parameters["user"], parameters["application_name"])


@pytest.mark.parametrize("direct", [None, "host=direct", lambda: "host=direct"])
async def test_a_library_connects_past_a_pooler(colour, direct):
    async def address():
        return "host=pooled"

    given = address if colour is COLOURS["tasks"] else lambda: "host=pooled"
    pool = colour.Pool(given, direct_conninfo=direct, kwargs=lambda: {"dbname": "shop"})
    conninfo, kwargs = await asked(pool)

    assert ("host=direct" if direct else "host=pooled") == conninfo
    assert "shop" == kwargs["dbname"]
