"""A PostgreSQL that has PostGIS, which the wheel's has not: Debian's, or another one.

Found in its usual place, or said with EDGEPOOL_POSTGIS_BIN_DIR; `make postgis` installs
it on Debian, with the libraries that GeoDjango needs.
"""

from __future__ import annotations

from pathlib import Path

from support import pg_builds

WHERE = "EDGEPOOL_POSTGIS_BIN_DIR"


def bin_dir():
    """Give the folder of its programs."""
    return pg_builds.bin_dir(
        WHERE,
        "tests of GeoDjango need a PostgreSQL with PostGIS: `make postgis` installs"
        " Debian's",
        has_postgis,
    )


def has_postgis(place):
    """Tell whether the server of which the programs are in a folder has PostGIS."""
    if not (program := place / "pg_config").is_file():
        return False
    shared = pg_builds.said_by(program, "--sharedir")
    return Path(shared, "extension", "postgis.control").is_file()
