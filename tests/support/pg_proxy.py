"""A TCP proxy before PostgreSQL: the one that users' faults are made with.

And what it can say to clients in the server's name.
"""

from edgepool.testing._proxy import Proxy
from edgepool.testing._wire import problem

__all__ = ["Proxy", "farewell", "notice", "parameter_status"]


def parameter_status(name, value):
    """Make the message that tells of a changed parameter."""
    return b"S", f"{name}\0{value}\0".encode()


def notice(text):
    """Make a message that a client may ignore."""
    _, body = problem("00000", text, severity="NOTICE")
    return b"N", body


# The message with which a server ends a session.
farewell = problem
