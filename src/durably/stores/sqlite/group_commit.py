"""Group commit: all who write at the same moment share one transaction and one flush to disk.

What piles up within one turn of the event loop runs in one transaction; after its commit, and only then, every
waiter learns its result. A unit that fails is undone alone.

Where the commit happens is chosen by measurement: a hop to a thread and back costs more than a commit on a
fast disk, but a slow disk must not stop the event loop. See docs/adr/0002-where-to-commit.md.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from durably.core.clock import Clock
from durably.core.errors import DurablyError, StoreError, ValueRefusedError
from durably.core.events import DurablyEvent
from durably.stores.sqlite.checkpoints import Checkpoints
from durably.stores.sqlite.connections import Connections
from durably.stores.sqlite.database import Database
from durably.stores.sqlite.locking import begin_writing, is_busy
from durably.stores.sqlite.pacing import CommitPace
from durably.stores.sqlite.unit import Transaction, Unit, Write

T = TypeVar("T")

_LOCK_SECONDS: Final = 10.0
_LAST_LOCK_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 1.0

log = logging.getLogger("durably.sqlite")


class _Batch:
    """Writes that share a transaction, and what became of them."""

    __slots__ = ("announced", "error", "results", "told", "writes")

    def __init__(self, writes: list[Write[Any]], announced: list[DurablyEvent]) -> None:
        self.writes = writes
        self.announced = announced
        self.results: list[Any] = []
        self.told: list[tuple[int, list[DurablyEvent], list[DurablyEvent]]] = []
        """Each row that the transaction added to the event log, with what was announced before it and by it."""
        self.error: BaseException | None = None


class _BusyError(Exception):
    """Another process holds the write lock; not something to wait for on the event loop."""


class GroupCommit:
    """The one writer of a database in this process."""

    def __init__(
        self,
        database: Database,
        connections: Connections,
        clock: Clock,
        *,
        write_events: Callable[[Transaction, list[DurablyEvent]], int],
        committed: Callable[[int, list[DurablyEvent], list[DurablyEvent]], None],
    ) -> None:
        self._database = database
        self._connection = connections.writing
        self._cursor = self._connection.cursor()
        self._lock = connections.lock
        self._clock = clock
        self._has_thread = not connections.is_single
        self._write_events = write_events
        self._committed = committed
        self._pace = CommitPace(database.options.commit if self._has_thread else "in-place")
        self._writes: list[Write[Any]] = []
        self._may_take_long = False
        self._announced: list[DurablyEvent] = []
        self._retry: asyncio.TimerHandle | None = None
        self._is_scheduled = False
        self._lock_seconds = _LOCK_SECONDS
        self._in_thread: _Batch | None = None
        self._handed_over: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._checkpoints = Checkpoints(database, connections) if self._has_thread else None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, unit: Unit[T], *, may_take_long: bool = False) -> Write[T]:
        """Run `unit` in the next shared transaction; what is returned has its result once that is committed.

        One that `may_take_long`, as its work has no bound, is kept off the event loop.
        """
        write = Write(unit)
        self._writes.append(write)
        self._may_take_long = self._may_take_long or may_take_long
        self._schedule(asyncio.get_running_loop())
        return write

    def announce(self, event: DurablyEvent) -> None:
        """Add an event to the next transaction; `flush_soon` sees to it that there is one."""
        self._announced.append(event)

    @property
    def announced(self) -> int:
        """Return how many events wait for a transaction."""
        return len(self._announced)

    def flush_soon(self) -> None:
        """Begin a transaction in the next turn of the loop if anything waits for one."""
        if self._announced or self._writes:
            self._schedule(asyncio.get_running_loop())

    def forget_loop(self) -> None:
        """Drop what waits on an event loop that is gone; nobody there can learn of it any more.

        What was handed to the thread is committed all the same.
        """
        with self._lock:
            self._writes = []
            self._may_take_long = False
            self._is_scheduled = False
            self._in_thread = None
            self._retry = None

    def hurry(self) -> None:
        """Wait for a lock that another process holds only shortly from now on: this process is about to leave."""
        self._lock_seconds = _LAST_LOCK_SECONDS

    def close(self) -> None:
        """End the writer thread. Nobody may be waiting any more; announcements that could not be written are lost."""
        self._announced = []
        if self._retry is not None:
            self._retry.cancel()
        if self._thread is not None:
            self._handed_over.put(None)
            self._thread.join()

    # --- on the event loop -------------------------------------------------------------------------

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        if not self._is_scheduled and self._in_thread is None:
            self._is_scheduled = True
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_scheduled = False
        if not self._writes and not self._announced:
            return
        batch = _Batch(self._writes, self._announced)
        self._writes, self._announced = [], []
        is_affordable = self._pace.is_affordable_in_place(may_take_long=self._may_take_long)
        self._may_take_long = False
        if not is_affordable or not self._lock.acquire(blocking=False):
            self._hand_over(batch)
            return
        try:
            self._commit(batch, wait_for_lock=not self._has_thread)
        except _BusyError:
            self._hand_over(batch)
            return
        finally:
            self._lock.release()
        self._settle(batch)
        checkpoints = self._checkpoints
        if checkpoints is not None and checkpoints.are_due() and not checkpoints.take_here():
            self._do_in_thread(checkpoints.take_apart)

    def _hand_over(self, batch: _Batch) -> None:
        self._in_thread = batch
        # The loop as it is now: on one that comes after it another batch may be under way by then.
        self._do_in_thread(partial(self._commit_apart, batch, asyncio.get_running_loop()))

    def _do_in_thread(self, work: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="durably-sqlite-writer", daemon=True)
            self._thread.start()
        self._handed_over.put(work)

    def _take_back(self) -> None:
        batch, self._in_thread = self._in_thread, None
        try:
            if batch is not None:
                self._settle(batch)
        finally:
            if (self._writes or (self._announced and self._retry is None)) and self._loop is not None:
                self._schedule(self._loop)

    def _settle(self, batch: _Batch) -> None:
        """Tell every waiter, and then the world, what was committed."""
        if batch.error is not None:
            self._announced[:0] = batch.announced
            self._retry_later()
            for write in batch.writes:
                write.settle(batch.error)
            return
        for write, result in zip(batch.writes, batch.results, strict=True):
            write.settle(result)
        for told in batch.told:
            self._committed(*told)

    def _retry_later(self) -> None:
        """Try again to write what was announced, also when nobody writes anything else; at once would not help."""
        if self._announced and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self.flush_soon()

    # --- in whichever thread commits ---------------------------------------------------------------

    def _serve(self) -> None:
        while (work := self._handed_over.get()) is not None:
            work()

    def _commit_apart(self, batch: _Batch, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._commit(batch, wait_for_lock=True)
        # A loop that was closed meanwhile has nobody left to tell.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._take_back)
        if self._checkpoints is not None and self._checkpoints.are_due():
            self._checkpoints.take_apart()

    def _commit(self, batch: _Batch, *, wait_for_lock: bool) -> None:
        """Run a batch in one transaction; its errors are kept in it, except `_BusyError` when not waiting."""
        try:
            self._database.files.check()
            self._transact(batch, self._run_all, wait_for_lock=wait_for_lock)
        except _BusyError:
            raise
        except BaseException as error:  # noqa: BLE001 - the waiters get it, whatever it is
            self._roll_back()
            explained = self._explain(error)
            is_refused = isinstance(explained, ValueRefusedError)
            if is_refused or (len(batch.writes) > 1 and not isinstance(error, StoreError)):
                self._commit_one_by_one(batch, wait_for_lock=wait_for_lock)
            else:
                batch.error = explained

    def _commit_one_by_one(self, batch: _Batch, *, wait_for_lock: bool) -> None:
        """Run a batch again so that a unit that fails is undone alone; raises as `_commit` does."""
        try:
            self._transact(batch, self._run_each_apart, wait_for_lock=wait_for_lock)
        except _BusyError:
            raise
        except BaseException as error:  # noqa: BLE001 - the waiters get it, whatever it is
            self._roll_back()
            batch.error = self._explain(error)

    def _transact(self, batch: _Batch, run: Callable[[Transaction, _Batch], None], *, wait_for_lock: bool) -> None:
        self._begin(wait_for_lock=wait_for_lock)
        transaction = Transaction(self._connection, self._cursor, self._clock)
        batch.told = []
        run(transaction, batch)
        started = time.perf_counter()
        self._cursor.execute("COMMIT")
        self._pace.saw(time.perf_counter() - started)
        if self._checkpoints is not None:
            self._checkpoints.saw_commit(transaction.length_told)

    def _begin(self, *, wait_for_lock: bool) -> None:
        try:
            begin_writing(self._cursor, self._may_wait if wait_for_lock else _may_not_wait)
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            if not wait_for_lock:
                raise _BusyError from error
            # Ours, so that no unit is taken for the cause and the lock waited for once more.
            raise self._database.explain(error) from error

    def _may_wait(self, seconds: float) -> bool:
        # The limit may become a shorter one meanwhile.
        return seconds < self._lock_seconds

    def _run_all(self, transaction: Transaction, batch: _Batch) -> None:
        connection, results = self._connection, []
        for write in batch.writes:
            changes, events = connection.total_changes, len(transaction.events)
            try:
                results.append(write.unit(transaction))
            except DurablyError as refusal:
                if connection.total_changes != changes:
                    raise
                # Refused before it wrote anything: there is nothing to undo.
                del transaction.events[events:]
                # Its traceback would hold what holds it.
                results.append(refusal.with_traceback(None))
        batch.results = results
        self._tell(transaction, batch, batch.announced)

    def _tell(self, transaction: Transaction, batch: _Batch, announced: list[DurablyEvent]) -> None:
        events, transaction.events = transaction.events, []
        if announced or events:
            batch.told.append((self._write_events(transaction, announced + events), announced, events))

    def _run_each_apart(self, transaction: Transaction, batch: _Batch) -> None:
        told = self._run_apart(transaction, lambda: self._tell(transaction, batch, batch.announced))
        if isinstance(told, ValueRefusedError):
            # Kept, they would be refused again, and with them everything that is written from now on.
            log.warning("%d events are missing in the log of events: %s", len(batch.announced), told)
        elif told is not None:
            raise told

        def run(unit: Unit[Any]) -> Any:
            result = unit(transaction)
            self._tell(transaction, batch, [])
            return result

        batch.results = [self._run_apart(transaction, partial(run, write.unit)) for write in batch.writes]

    def _run_apart(self, transaction: Transaction, work: Callable[[], Any]) -> Any:
        """Return what `work` returns, or its error when it is undone."""
        self._connection.execute("SAVEPOINT unit")
        try:
            result = work()
        except BaseException as error:
            if not self._connection.in_transaction:
                # A full disk can end the transaction by itself; then nobody's work is there.
                raise
            self._connection.execute("ROLLBACK TO unit")
            transaction.events.clear()
            result = self._explain(error)
        self._connection.execute("RELEASE unit")
        return result

    def _roll_back(self) -> None:
        # The waiters get the error that led here, whatever comes of this.
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _explain(self, error: BaseException) -> BaseException:
        return self._database.explain(error) if isinstance(error, sqlite3.Error | OverflowError) else error


def _may_not_wait(seconds: float) -> bool:  # noqa: ARG001 - however little it is
    return False
