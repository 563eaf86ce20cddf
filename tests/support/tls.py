"""A PostgreSQL that speaks TLS, which the wheel's does not: Debian's, or another one.

Found in its usual place, or said with EDGEPOOL_TLS_BIN_DIR; `make tls` installs it on
Debian.
"""

from __future__ import annotations

import datetime
import os

from edgepool.testing import PostgresServer
from support import pg_builds

WHERE = "EDGEPOOL_TLS_BIN_DIR"


def bin_dir():
    """Give the folder of its programs."""
    return pg_builds.bin_dir(
        WHERE,
        "tests over TLS need a PostgreSQL that was built with OpenSSL: `make tls`"
        " installs Debian's",
        lambda place: True,
    )


def server(**settings):
    """Make and start a server with a certificate of its own, for 127.0.0.1."""
    made = PostgresServer(bin_dir=bin_dir(), settings=settings)
    made.start()
    certificate, key = made.directory / "server.crt", made.directory / "server.key"
    _write_certificate(certificate, key)
    owner = made.directory.stat()
    os.chown(key, owner.st_uid, owner.st_gid)
    made.stop()
    made.settings |= {
        "ssl": "on",
        "ssl_cert_file": str(certificate),
        "ssl_key_file": str(key),
    }
    made.start()
    return made


def conninfo(server, **parameters):
    """Connect by TLS, and not at all without."""
    return server.conninfo_for(
        sslmode="verify-ca", sslrootcert=server.directory / "server.crt", **parameters
    )


def _write_certificate(certificate, key):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
