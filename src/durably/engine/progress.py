"""How far a run says it has come: told at once, stored a few times a second."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any, Final

from durably.core.clock import Clock
from durably.core.errors import StoreError
from durably.core.events import RunProgressEvent
from durably.core.json_values import encode_leniently
from durably.core.runs import ProgressData
from durably.core.texts import shortened, storable, text_of
from durably.engine.event_hub import EventHub
from durably.engine.leased_store import LeasedStore
from durably.tasks import begin_task

_STORE_SECONDS: Final = 0.2

log = logging.getLogger("durably")


def progress_of(current: object, total: object, message: object) -> ProgressData | None:
    """Return what was reported as it can be stored; None where `current` is no finite number."""
    reached = _number(current)
    if reached is None:
        return None
    text = message if message is None or isinstance(message, str) else text_of(message)
    return ProgressData(reached, _number(total), None if text is None else shortened(storable(text)))


def _number(value: Any) -> float | None:
    """Return a finite number: Python's own as it is, others (a Decimal, NumPy's) as a float."""
    try:
        as_float = float(value)
    except Exception:  # noqa: BLE001 - progress must not fail the job, whatever object it was given
        return None
    if not math.isfinite(as_float) or isinstance(value, str):
        return None
    return value if type(value) in (int, float) else as_float


class ProgressKeeper:
    """The latest progress of one run, and whether the database has it."""

    def __init__(self, about: dict[str, Any], store: LeasedStore, hub: EventHub, clock: Clock) -> None:
        self._run_id: str = about["run_id"]
        self._about = about
        self._store = store
        self._hub = hub
        self._clock = clock
        self._latest: ProgressData | None = None
        self._is_stored = True
        self._timer: asyncio.TimerHandle | None = None
        self._storing: asyncio.Task[None] | None = None
        self._is_closed = False

    def report(self, progress: ProgressData) -> None:
        """Tell how far the run has come; stored with the next checkpoint, or soon. Nothing once the run has ended."""
        if self._is_closed:
            return
        if self._latest is None:
            self._hub.progress.begin(self._run_id, self._store_latest)
        self._latest = progress
        self._is_stored = False
        self._hub.announce(RunProgressEvent(timestamp=self._clock.now(), **self._about, progress=progress))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_STORE_SECONDS, self._store_soon)

    def take(self) -> str | None:
        """Return the JSON of progress that is not stored yet, for a write that will store it."""
        if self._latest is None or self._is_stored:
            return None
        self._is_stored = True
        given = {"current": self._latest.current, "total": self._latest.total, "message": self._latest.message}
        return encode_leniently({name: value for name, value in given.items() if value is not None})

    async def take_last(self) -> str | None:
        """Return what `take` does once it is known what became of a write under way: no other will follow."""
        if self._storing is not None and not self._storing.done():
            await asyncio.wait([self._storing])
        return self.take()

    def give_back(self) -> None:
        """Note that what was taken was not stored after all."""
        self._is_stored = False

    def close(self) -> None:
        """Tell and store no more: the run has ended here."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._storing is not None:
            self._storing.cancel()
        self._hub.progress.end(self._run_id, self._store_latest)

    def _store_soon(self) -> None:
        self._timer = None
        if not self._is_stored:
            self._storing = begin_task(self._store_latest())
            self._timer = asyncio.get_running_loop().call_later(_STORE_SECONDS, self._store_soon)

    async def _store_latest(self) -> None:
        text = self.take()
        if text is None:
            return
        try:
            await self._store.save_progress(text)
        except StoreError as error:
            self.give_back()
            log.debug("progress of run %s could not be stored yet: %s", self._run_id, error)
