"""A TCP proxy before PostgreSQL: the one that users' faults are made with."""

from edgepool.testing._proxy import Proxy, farewell, notice, parameter_status

__all__ = ["Proxy", "farewell", "notice", "parameter_status"]
