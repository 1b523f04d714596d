"""How a run's code learns that it should end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal
from weakref import WeakSet

from durably.core.errors import CancelledError, DurablyError, LeaseLostError

log = logging.getLogger("durably")

AbortReason = Literal["cancelled", "lease-lost", "released"]


class AbortSignal:
    """Tells the code of a run that the run was cancelled or its lease is gone.

    May be looked at from any thread. `reason` is `"cancelled"`, `"lease-lost"` or `"released"` (this
    process is stopping and gave the run back), None while nothing happened.

    >>> while not signal.aborted:
    ...     read_next_chunk()
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._reason: AbortReason | None = None
        self._listeners: list[Callable[[], object]] = []
        self._spared: set[asyncio.Task[Any] | None] = set()
        self._told: WeakSet[asyncio.Task[Any]] = WeakSet()
        """The tasks whose code has looked, or has been given the error; or is called when it is aborted."""
        self._lock = threading.Lock()

    @property
    def aborted(self) -> bool:
        """Tell whether the code should end."""
        return self.reason is not None

    @property
    def reason(self) -> AbortReason | None:
        """Return why, or None."""
        if self._reason is not None:
            self._note_told()
        return self._reason

    @property
    def unseen_reason(self) -> AbortReason | None:
        """Return why, or None, for code that is not the run's own: the run has not learnt of it by that."""
        return self._reason

    async def wait(self) -> None:
        """Return once the signal is aborted; what waits here learns of it so, and is not interrupted."""
        loop = asyncio.get_running_loop()
        aborted = asyncio.Event()
        forget = self.listen(lambda: loop.call_soon_threadsafe(aborted.set))
        try:
            with self.learnt_here():
                await aborted.wait()
            self._note_told()
        finally:
            forget()

    @contextmanager
    def learnt_here(self) -> Iterator[None]:
        """Spare the task of this code the interruption: what it awaits here tells it of the end."""
        task = asyncio.current_task()
        self._spared.add(task)
        try:
            yield
        finally:
            self._spared.discard(task)

    def spares(self, task: asyncio.Task[Any]) -> bool:
        """Tell whether a task learns of the end by itself."""
        return task in self._spared

    def has_told(self, task: asyncio.Task[Any]) -> bool:
        """Tell whether the code of a task has learnt of the end, by the error or because it looked."""
        return task in self._told

    def throw_if_aborted(self) -> None:
        """Raise `CancelledError` or `LeaseLostError` if the code should end."""
        if self._reason is not None:
            raise self.error()

    def error(self) -> DurablyError:
        """Return what to raise for the reason given."""
        self._note_told()
        return CancelledError(self._run_id) if self._reason == "cancelled" else LeaseLostError(self._run_id)

    def on_abort(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call `listener` when aborted, at once if it already is; return what takes that back.

        It is called without arguments, in whatever thread found out: the event loop's, or the one that renews leases,
        both of which it must not block. What it raises then goes to the log; called at once, it raises here.

        >>> forget = signal.on_abort(connection.interrupt)
        """
        self._note_told()
        return self.listen(listener)

    def listen(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Do what `on_abort` does, for code that is not the run's own."""
        with self._lock:
            if self._reason is None:
                self._listeners.append(listener)
                return lambda: self._forget(listener)
        listener()
        return lambda: None

    def _note_told(self) -> None:
        # In the thread of a plain job there is no task.
        with suppress(RuntimeError):
            if (task := asyncio.current_task()) is not None:
                self._told.add(task)

    def _forget(self, listener: Callable[[], object]) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def _abort(self, reason: AbortReason) -> bool:
        with self._lock:
            if self._reason is not None:
                return False
            self._reason = reason
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            try:
                listener()
            except (Exception, DurablyError, asyncio.CancelledError):
                # Whoever aborts, the thread of the leases among them, must not suffer for it.
                log.exception("a listener for the end of run %s failed", self._run_id)
        return True


class AbortController:
    """The other end of an `AbortSignal`."""

    def __init__(self, run_id: str) -> None:
        self.signal = AbortSignal(run_id)

    def abort(self, reason: AbortReason) -> bool:
        """Abort the signal, and tell whether this did it: the first reason counts. From any thread."""
        return self.signal._abort(reason)  # noqa: SLF001 - the one other party to the signal
