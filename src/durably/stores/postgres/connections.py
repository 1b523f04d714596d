"""Connections to one database: a small pool, and a time limit on every statement.

Nothing here depends on what a server session remembers, so a transaction pooler may stand in between.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

import asyncpg

from durably.core.errors import StoreError
from durably.stores.postgres.errors import LOST, explain
from durably.stores.postgres.options import PostgresOptions
from durably.tasks import begin_task

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

T = TypeVar("T")

Plans = Literal["generic", "custom"]
"""Whether a statement is planned once, or anew for the values of each call; to plan takes as long as to execute."""

_TABLES: Final = re.compile(r"\bdurably_(?=runs|run_labels|steps|logs|events|schema_versions)")
_CLOSE_SECONDS: Final = 2.0


class Server:
    """One database on a server, or on several of which one is the primary."""

    def __init__(self, options: PostgresOptions) -> None:
        self.options = options
        self.name = options.name
        self.schema = options.schema
        self._qualified: dict[str, str] = {}

    async def connect(self, *, direct: bool = False, plans: Plans = "generic") -> Connection:
        """Open a connection. Raises the driver's errors."""
        arguments = self.options.arguments(direct=direct)
        if "server_settings" in arguments:
            arguments["server_settings"] = self._tuned(arguments["server_settings"], plans)
        try:
            connection: Connection = await asyncpg.connect(**arguments)
        except ssl.SSLCertVerificationError as error:
            # Not one of the errors after which trying again may help.
            raise StoreError(
                f"{self.name} cannot be trusted: see the host, `sslmode` and `sslrootcert` of the URL ({error})"
            ) from error
        except (ValueError, asyncpg.ClientConfigurationError) as error:
            raise StoreError(f"{self.name} cannot be connected to: {error}") from error
        except FileNotFoundError as error:
            if (missing := self.options.missing_file()) is None:
                raise
            raise StoreError(f"{self.name} cannot be connected to: there is no file as in {missing}") from error
        except asyncpg.TargetServerAttributeNotMatched:
            raise
        except asyncpg.InternalClientError as error:
            raise ConnectionResetError(str(error)) from error
        return connection

    def qualified(self, statement: str) -> str:
        """Return a statement with our tables in the schema of the URL."""
        if self.schema is None:
            return statement
        if statement not in self._qualified:
            prefix = quoted(self.schema) + ".durably_"
            self._qualified[statement] = _TABLES.sub(lambda _: prefix, statement)
        return self._qualified[statement]

    async def fetch(self, connection: Connection, statement: str, *values: Any) -> Sequence[Any]:
        """Return the rows of a statement. Raises the driver's errors; a late answer ends the connection."""
        limit = asyncio.get_running_loop().call_later(self.options.command_seconds, connection.terminate)
        try:
            return await connection.fetch(self.qualified(statement), *values)
        except asyncio.CancelledError:
            # The driver would open another connection to ask for the cancellation, and wait for it unboundedly.
            connection.terminate()
            raise
        except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            # The driver may also lose its own thread when a session is ended in the midst of preparing.
            if isinstance(error, asyncpg.InternalClientError) or connection.is_closed():
                connection.terminate()
                raise ConnectionResetError(str(error)) from error
            raise
        finally:
            limit.cancel()

    def explain(self, error: BaseException, *, direct: bool = False) -> BaseException:
        """Return our error for one of the driver's; `direct` as `connect` was told."""
        return explain(error, self.options.direct_name if direct else self.name)

    def _tuned(self, settings: dict[str, str], plans: Plans) -> dict[str, str]:
        return {
            # Plans are made once per connection, perhaps while the tables are empty, and must stay right when
            # they have grown: every look-up of ours has an index.
            "plan_cache_mode": f"force_{plans}_plan",
            "enable_seqscan": "off",
            "jit": "off",
            # What a lost client has left behind must not hold locks for long.
            "statement_timeout": str(round(self.options.command_seconds * 1000)),
            "idle_in_transaction_session_timeout": str(round(self.options.command_seconds * 1000)),
            **settings,
        }


class Connecting:
    """Connections in the making, each made to its end: interrupted, the driver leaves an error that nobody asks for."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._under_way: set[asyncio.Task[Connection]] = set()

    async def connect(self, *, direct: bool = False, plans: Plans = "generic") -> Connection:
        """Open a connection; one that nobody waits for any more is ended. Raises the driver's errors."""
        making = begin_task(self._server.connect(direct=direct, plans=plans), "durably-postgres-connect")
        self._under_way.add(making)
        making.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_end_unwanted)
            raise

    async def close(self) -> None:
        """Return when none is in the making any more; a server that does not answer is not waited for."""
        if not self._under_way:
            return
        _, late = await asyncio.wait(self._under_way, timeout=_CLOSE_SECONDS)
        for making in late:
            making.cancel()
        # So that the sockets of those that were ended right now are closed too.
        await asyncio.sleep(0)
        await asyncio.sleep(0)


class Pool:
    """Connections that are used one statement at a time; the one used last is used next."""

    def __init__(self, server: Server, connecting: Connecting, size: int, *, plans: Plans = "generic") -> None:
        self._server = server
        self._connecting = connecting
        self._plans: Plans = plans
        self._free = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._keeps_idle = True
        self._is_closed = False

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Return what `work` makes of a connection. Raises the driver's errors."""
        async with self._free:
            connection = await self._take()
            try:
                return await work(connection)
            except LOST:
                # After a restart of the server all of them are dead.
                self._drop_idle()
                connection.terminate()
                raise
            finally:
                if not self._keeps_idle:
                    connection.terminate()
                elif not connection.is_closed():
                    self._idle.append(connection)

    async def fetch(self, statement: str, *values: Any) -> Sequence[Any]:
        """Return the rows of a statement that may be repeated. Raises our errors."""
        try:
            try:
                return await self.run(lambda connection: self._server.fetch(connection, statement, *values))
            except LOST:
                return await self.run(lambda connection: self._server.fetch(connection, statement, *values))
        except Exception as error:
            raise self._server.explain(error) from error

    def leave(self) -> None:
        """End what is idle now without a word to the server, and the others when they come back."""
        self._keeps_idle = False
        self._drop_idle()

    async def close(self) -> None:
        """Close what is idle now, and the others when they come back; give none any more."""
        self._keeps_idle = False
        self._is_closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await close(connection)

    async def _take(self) -> Connection:
        if self._is_closed:
            raise StoreError(f"{self._server.name} was closed: make a new instance to use it again")
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self._connecting.connect(plans=self._plans)

    def _drop_idle(self) -> None:
        for connection in self._idle:
            connection.terminate()
        self._idle.clear()


def _end_unwanted(making: asyncio.Task[Connection]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().terminate()


async def close(connection: Connection) -> None:
    """Take leave of the server if it answers soon, else just go."""
    try:
        await connection.close(timeout=_CLOSE_SECONDS)
    except (*LOST, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


def quoted(identifier: str) -> str:
    """Return a name as SQL quotes it."""
    return '"' + identifier.replace('"', '""') + '"'
