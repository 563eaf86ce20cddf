"""What both pools have in common: SQLAlchemy's interface, in front of edgepool's."""

# What a pool is told of, and tells the engine, is private by name:
# pyright: reportPrivateUsage=false

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping
from sys import _getframe
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

from sqlalchemy import exc
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool import Pool
from typing_extensions import Self

from .. import ConnectFailed, PoolTimeout, TooManyRequests
from ..psycopg._arguments import blamed
from ..psycopg._dsn import parse
from ..psycopg._dsn_parameters import is_mapping
from ..psycopg._face import PsycopgFace
from ..psycopg._leases import discard, take_back
from ..psycopg._session import has_prepared, tidied
from ._arguments import (
    ConnectArguments,
    arguments_of_pool,
    must_be_psycopg,
    must_be_sqlalchemys,
    must_be_unsaid,
    must_be_warmest_first,
)
from ._record import Record, handed_over

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from .. import PoolStatistics

E = TypeVar("E", bound="PsycopgFace[Any, Any]")


class EdgePoolBase(Pool, Generic[E]):
    """The part of both pools that neither waits nor works."""

    edge: E
    """The pool behind it."""

    is_ours: bool
    """Whether the engine has made it; or others use it too."""

    _edge_class: ClassVar[Any]

    # As ordinary parameters, however many: SQLAlchemy looks for their names.
    def __init__(
        self,
        creator: Callable[..., Any] | None = None,
        edge: E | Mapping[str, Any] | None = None,
        pool_size: int | None = None,
        max_overflow: int | None = None,
        timeout: float | None = None,
        use_lifo: bool | None = None,
        recycle: float = -1,
        **kw: Any,
    ) -> None:
        must_be_warmest_first(use_lifo)
        must_be_sqlalchemys(creator)
        # Not the creator that was given: it would connect.
        super().__init__(handed_over, recycle=cast("int", recycle), **kw)  # type: ignore[arg-type]
        self._arguments: dict[str, Any] = {
            "creator": creator,
            "edge": edge,
            "pool_size": pool_size,
            "max_overflow": max_overflow,
            "timeout": timeout,
            "recycle": recycle,
        }
        sizes = {"pool_size": pool_size, "max_overflow": max_overflow}
        words = {**sizes, "pool_timeout": timeout}
        said = {word: value for word, value in words.items() if value is not None}
        self.is_ours = not isinstance(edge, self._edge_class)
        if self.is_ours:
            self._size, self.edge = self._made(creator, edge, said, recycle)
        else:
            must_be_unsaid(said)
            self.edge = cast("E", edge)
        # What the engine knows of connections that are not lent, by their `pgconn`.
        self._idle: WeakKeyDictionary[Any, Record] = WeakKeyDictionary()

    def _made(
        self,
        creator: Callable[..., Any] | None,
        edge: object,
        said: Mapping[str, Any],
        recycle: float,
    ) -> tuple[int, Any]:
        """Make a pool of the engine's own; return its `pool_size` as well."""
        if edge is not None and not is_mapping(edge):
            raise TypeError(
                f"edge must be an edgepool.{self._edge_class.__name__}, or a mapping"
                f" of the arguments of one, not {edge!r}"
            )
        if creator is None:
            raise ValueError(
                "nothing says where to connect: give create_engine this class as"
                " poolclass, or give it an edge"
            )
        dialect, given = self.fitted_dialect(), edge or {}
        if not isinstance(creator, ConnectArguments):
            creator = ConnectArguments(dialect, creator)
        # For `recreate`.
        self._arguments["creator"] = creator
        told = creator.unchanged
        dsn = parse(told)
        with blamed(dsn.origins, given):
            size, arguments = arguments_of_pool(said, recycle, given, dsn.arguments)
            # Behind a pooler it has a meaning that it was given.
            kwargs = {k: v for k, v in told.items() if k == "prepare_threshold"}
            made: Any = self._edge_class(creator, kwargs=kwargs, **arguments)
        # The pool would say of each argument in the URL that it has no effect.
        made._adapter.has_warned = True
        return size, made

    def fitted_dialect(self) -> Any:
        """Give the engine's dialect, which the pool may have got after it was made."""
        dialect: Any = self._dialect
        must_be_psycopg(dialect)
        if dialect.is_async is not self._is_asyncio:
            raise ValueError(
                "EdgePool is for create_engine, and AsyncEdgePool for"
                f" create_async_engine, which is not what has got {type(self).__name__}"
            )
        its, usual = cast("Any", type(dialect)), cast("Any", DefaultDialect)
        # A dialect with a way of its own keeps that.
        if its.do_rollback is usual.do_rollback:
            dialect.do_rollback = self.roll_back
        return dialect

    # --- checkout and checkin -----------------------------------------------------

    def driver_of(self, connection: DBAPIConnection) -> Any:
        """Give psycopg's connection behind SQLAlchemy's, which may be the same."""
        return self._dialect.get_driver_connection(connection)

    def _do_get(self) -> Record:
        return self.supply(None)

    def supply(self, record: Record | None) -> Record:
        """Borrow a connection, for a record or with its own."""
        connection = self.borrow()
        known = self._idle.pop(self.driver_of(connection).pgconn, None)
        if known is None:
            record = record or Record(self)
            record.arrived = connection
            return record
        if record is None:
            record = known
        else:
            record.adopt(known)
        record.resume(connection)
        return record

    def borrow(self) -> DBAPIConnection:
        """Borrow a connection.

        Raises:
            sqlalchemy.exc.TimeoutError, psycopg.Error: see `EdgePool`.
        """
        try:
            return self._lend()
        except ConnectFailed:
            raise
        except (PoolTimeout, TooManyRequests) as error:
            # An error of psycopg's, as a failed connect is to an engine anyway. But not
            # if there are no connections because they are lent.
            if error.__cause__ is not None:
                raise
            raise exc.TimeoutError(str(error), code="3o7r") from error

    @abstractmethod
    def _lend(self) -> DBAPIConnection:
        """Borrow a connection of edgepool's, and make it SQLAlchemy's."""

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        mine = cast("Record", record)
        connection, mine.dbapi_connection = mine.dbapi_connection, None
        if connection is None:
            return  # it was invalidated, and so returned before; or it was detached
        conn = self.driver_of(connection)
        if not self.edge._adapter.cleans:
            # Else nothing is left of what the `connect` listeners have set.
            self._idle[conn.pgconn] = mine
        take_back(self.edge, conn, _getframe(1))

    def roll_back(self, connection: PoolProxiedConnection) -> None:
        """Roll back; keep the prepared statements if nothing was changed.

        psycopg's own `rollback` drops them, and begins to count anew. SQLAlchemy rolls
        back whatever was only read: so nothing that reads would ever stay prepared.
        """
        conn: Any = getattr(connection, "driver_connection", None)
        if getattr(conn, "_pool", None) is self.edge and has_prepared(conn):
            self._wait(conn, tidied(conn))
        else:  # also whatever psycopg has to say about it
            usual: Any = DefaultDialect
            try:
                usual.do_rollback(self._dialect, connection)
            finally:
                self._let_go(connection)

    @abstractmethod
    def _wait(self, conn: Any, work: Generator[Any, Any, None]) -> None:
        """Do something on a lent connection, as psycopg's own methods do."""

    def _let_go(self, connection: PoolProxiedConnection) -> None:
        """Close a connection that is detached and broken, for nobody else will.

        SQLAlchemy drops such a one, and its place would be taken until it is collected.
        """
        conn = self._behind(connection)
        is_detached = getattr(connection, "_connection_record", connection) is None
        if is_detached and conn is not None and conn.closed and conn._pool is self.edge:
            discard(self.edge, conn, _getframe(1))

    def _behind(self, connection: PoolProxiedConnection) -> Any:
        """Give psycopg's connection, also of one that is detached; None: none."""
        found = getattr(connection, "dbapi_connection", None)
        return None if found is None else self.driver_of(found)

    def _close_connection(
        self, connection: DBAPIConnection, *, terminate: bool = False
    ) -> None:
        self.logger.debug("Closing connection %r", connection)
        discard(self.edge, self.driver_of(connection), _getframe(1))

    def _invalidate(
        self,
        connection: PoolProxiedConnection,
        exception: BaseException | None = None,
        _checkin: bool = True,
    ) -> None:
        """Invalidate a connection, and the others if they may be as bad.

        If it is broken nothing has to be believed of the others: edgepool looks at them
        now, which takes no round trip, and keeps those that live.
        """
        conn = self._behind(connection)
        if _checkin and conn is not None and conn.closed:
            self._let_go(connection)
            connection.invalidate(exception)
            return
        before = self._invalidate_time
        super()._invalidate(connection, exception, _checkin)
        if self._invalidate_time != before:
            self.edge._drain(0.0)

    # --- the whole pool -----------------------------------------------------------

    def dispose(self) -> None:
        """Close all connections: the idle ones now, the others when they are returned.

        Who waits for one is served. A pool that was given as `edge` is left alone, for
        its owner to close.
        """
        self._idle.clear()
        if self.is_ours and not self.edge.closed:
            # From now on it is a null pool; the engine makes another one.
            self.edge._configure_core(min_size=0, keep_idle=False)
        self.logger.info("Pool disposed. %s", self.status())

    def recreate(self) -> Self:
        """Return a new pool with the same arguments: one of edgepool's too, if ours."""
        self.logger.info("Pool recreating")
        return type(self)(
            **self._arguments,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )

    def status(self) -> str:
        """Describe the pool, in QueuePool's words."""
        return (
            f"Pool size: {self.size()}  Connections in pool: {self.checkedin()} "
            f"Current Overflow: {self.overflow()} Current Checked out "
            f"connections: {self.checkedout()}"
        )

    def size(self) -> int:
        """Return `pool_size`, or the `max_size` that was given instead of it."""
        return self._size if self.is_ours else self.edge.max_size

    def checkedin(self) -> int:
        """Return how many connections are idle."""
        return self._statistics().idle

    def checkedout(self) -> int:
        """Return how many connections are lent; to others too, if they share `edge`."""
        return self._statistics().in_use

    def overflow(self) -> int:
        """Return how many connections there are beyond `size()`; negative: not yet."""
        return self._statistics().size - self.size()

    def timeout(self) -> float:
        """Return how long a checkout may take, in seconds."""
        return self.edge.timeout

    def _statistics(self) -> PoolStatistics:
        return self.edge.statistics()
