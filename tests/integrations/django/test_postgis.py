"""GeoDjango on a real PostGIS, with the pool.

Imports GeoDjango lazily: it looks for its libraries, and asks for settings.
"""

from __future__ import annotations

import itertools

import psycopg
import pytest
from django.apps.registry import Apps
from django.core.management import call_command
from django.db import connections, transaction

import edgepool
from edgepool.django import direct
from edgepool.testing import PostgresServer
from support import postgis
from support.pg import Sessions

NOWHERE = 1  # a port at which nobody listens

LONDON, PARIS, ROME = "POINT(-0.13 51.51)", "POINT(2.35 48.86)", "POINT(12.5 41.9)"

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def gis_server():
    """A server that has PostGIS to offer; none of its databases has it yet."""
    with PostgresServer(bin_dir=postgis.bin_dir(), settings={"fsync": "off"}) as server:
        yield server


@pytest.fixture
def gis_admin(gis_server):
    with psycopg.connect(gis_server.conninfo, autocommit=True) as connection:
        yield connection


@pytest.fixture
def gis_name(gis_admin):
    """The name of a database of the test's own, and of its application."""
    name = f"gis{next(_numbers)}"
    gis_admin.execute(f"create database {name}")
    return name


@pytest.fixture
def gis(database, gis_server, gis_name):
    """Add it to Django's: `gis(pool={...}, PORT=...)`; gives its alias."""
    conninfo = gis_server.conninfo_for(dbname=gis_name, application_name=gis_name)

    def add(**given):
        return database(conninfo, **{"ENGINE": "edgepool.django.postgis", **given})

    return add


@pytest.fixture
def gis_sessions(gis_admin, gis_name):
    return Sessions(gis_admin, gis_name)


@pytest.fixture(scope="module")
def places(set_up):
    """A model of places, which no other test's database has."""
    from django.contrib.gis.db import models

    class Place(models.Model):
        name = models.TextField()
        where = models.PointField(geography=True)

        class Meta:
            app_label = "places"
            apps = Apps()

    return Place


@pytest.fixture
def migrated(places):
    """Migrate, and add two places: `migrated(alias)`."""

    def migrate(alias):
        call_command("migrate", database=alias, verbosity=0)
        with connections[alias].schema_editor() as editor:
            editor.create_model(places)
        for name, where in {"London": LONDON, "Rome": ROME}.items():
            places.objects.using(alias).create(name=name, where=where)
        connections[alias].close()
        return alias

    return migrate


@pytest.fixture
def nearest(places):
    """Ask for the one that is nearest to Paris: `nearest(alias)`."""
    from django.contrib.gis.db.models.functions import Distance
    from django.contrib.gis.geos import GEOSGeometry

    def ask(alias):
        far = Distance("where", GEOSGeometry(PARIS, srid=4326))
        found = places.objects.using(alias).annotate(far=far).order_by("far")[0]

        # What PostGIS has sent is as it was: of its types, not of text.
        assert found.where.equals_exact(GEOSGeometry(LONDON, srid=4326))
        assert 340 < found.far.km < 350

        return found.name

    return ask


def test_migrate_creates_the_extension_and_a_distance_is_asked_for(
    gis, migrated, nearest
):
    alias = migrated(gis())

    assert "London" == nearest(alias)

    pool = connections[alias].pool

    assert isinstance(pool, edgepool.ConnectionPool)
    assert 1 == pool.statistics().in_use


def test_the_types_are_known_to_each_connection_however_often_it_is_lent(
    gis, gis_sessions, migrated, nearest
):
    alias = migrated(gis(CONN_HEALTH_CHECKS=True))
    for _ in range(3):
        nearest(alias)
        connections[alias].close()

    assert 0.0 == connections[alias].pool.check_after
    assert 1 == gis_sessions.count

    gis_sessions.terminate()

    assert "London" == nearest(alias)


def test_the_types_are_registered_once_for_each_connection(
    gis, migrated, nearest, monkeypatch
):
    from django.contrib.gis.db.backends.postgis.base import DatabaseWrapper

    def register(self, connection, clear_caches=False):
        registered.append(connection.info.backend_pid)
        stock(self, connection, clear_caches)

    registered, stock = [], DatabaseWrapper.register_geometry_adapters
    alias = migrated(gis())
    connections[alias].close_pool()  # its connection was there before the extension
    monkeypatch.setattr(DatabaseWrapper, "register_geometry_adapters", register)
    for _ in range(3):
        nearest(alias)
        connections[alias].close()

    assert 1 == len(registered)


def test_the_direct_way_has_the_extension_and_the_types(gis, migrated, nearest):
    past = gis(ENGINE="django.contrib.gis.db.backends.postgis")
    alias = gis(PORT=NOWHERE, direct=past)
    with direct(alias):
        migrated(alias)
        with transaction.atomic(using=alias):
            assert "London" == nearest(alias)


def test_a_database_for_tests_has_the_extension(gis, gis_name, migrated, nearest):
    alias = gis()
    creation = connections[alias].creation
    creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        assert "London" == nearest(migrated(alias))
    finally:
        creation.destroy_test_db(gis_name, verbosity=0)
