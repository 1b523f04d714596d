"""The connections to one database in this process, and the threads that read on them."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from typing import Final, TypeVar

from durably.core.clock import Clock
from durably.core.errors import StoreError
from durably.stores.sqlite import schema
from durably.stores.sqlite.database import Database

T = TypeVar("T")

_READ_THREADS: Final = 2


class Connections:
    """One connection that writes, one that reads on the event loop, and those of the threads that read."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.is_single: Final = database.in_memory or sys.platform == "emscripten"
        """Whether only one connection can exist: it writes, reads and renews, in turns."""
        self.writing: sqlite3.Connection
        self.reading: sqlite3.Connection
        self.lock: Final = threading.Lock()
        """Held while the connection that writes is in use; for those few who borrow it from another thread."""
        self._database = database
        self._clock = clock
        self._is_open = False
        self._is_closed = False
        self._idle_readers: deque[sqlite3.Connection] = deque()
        self._read_threads: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Open what the event loop uses; the others are opened when they are needed."""
        self.refuse_when_closed()
        with ExitStack() as opened:
            writing = opened.enter_context(closing(self._database.connect(writes=True)))
            if not self._database.in_memory:
                self._database.files.opened()
            reading = writing
            if not self.is_single:
                reading = opened.enter_context(closing(self._database.connect(writes=False)))
            with self._database.errors():
                schema.check_version(reading, self._database.name)
            self.writing, self.reading = writing, reading
            # From here on `close` closes them.
            opened.pop_all()
        self._is_open = True

    def refuse(self) -> None:
        """Take no more work; `close` waits for what is under way."""
        self._is_closed = True

    async def end_reads(self) -> None:
        """Return when nothing is read in a thread any more."""
        if self._read_threads is not None:
            # Off the loop, for a read may take long.
            await asyncio.to_thread(self._read_threads.shutdown)

    def close(self) -> None:
        """Close every connection; nothing uses one any more."""
        if not self._is_open:
            return
        for connection in {id(each): each for each in (*self._idle_readers, self.reading)}.values():
            connection.close()
        self.writing.close()
        self._database.files.closed()
        self._is_open = False

    # --- reading -----------------------------------------------------------------------------------

    def read_here(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Read a row, or a page of the log of events, on the event loop: mostly less than a hop to a thread."""
        # Not `errors()`: to make a context manager takes a fifth of such a read.
        try:
            if not self.is_single:
                return read(self.reading)
            with self.lock:
                return read(self.reading)
        except sqlite3.Error as error:
            raise self._database.explain(error) from error

    async def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Read something that may be large, off the event loop."""
        if self.is_single:
            return self.read_here(read)
        return await self._in_thread(partial(self._read_apart, read))

    def _read_apart(self, read: Callable[[sqlite3.Connection], T]) -> T:
        with self._database.errors():
            connection = self._idle_readers.pop() if self._idle_readers else self._database.connect(writes=False)
            try:
                return read(connection)
            finally:
                self._idle_readers.append(connection)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # A fork inherits no threads: it would wait for them for ever.
        self._database.files.refuse_after_fork()
        self.refuse_when_closed()
        if self._read_threads is None:
            self._read_threads = ThreadPoolExecutor(_READ_THREADS, thread_name_prefix="durably-sqlite-read")
        return await asyncio.get_running_loop().run_in_executor(self._read_threads, work)

    def refuse_when_closed(self) -> None:
        """Raise `StoreError` when `refuse` was called."""
        if self._is_closed:
            raise StoreError(f"{self._database.name} was closed: make a new instance to use it again")

    # --- on connections of their own, off the event loop ---------------------------------------------

    async def migrate(self) -> None:
        """Bring the schema up to date; where only one connection can exist it is open."""
        if self.is_single:
            self._migrate(self.writing)
        else:
            await self._in_thread(self._migrate_file)

    async def truncate_log(self) -> None:
        """Give the space of the write-ahead log back."""
        if not self.is_single:
            await self._in_thread(self._truncate_log)

    def _migrate_file(self) -> None:
        with closing(self._database.connect(writes=True)) as connection:
            connection.execute("PRAGMA busy_timeout = 10000")
            self._migrate(connection)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        with self._database.errors():
            schema.migrate(connection, self._clock, self._database.name)

    def _truncate_log(self) -> None:
        with self._database.errors(), closing(self._database.connect(writes=True)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
