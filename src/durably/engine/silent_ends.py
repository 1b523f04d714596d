"""Finds runs that ended without an event: not every program that shares the database writes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from durably.core.errors import StoreError
from durably.core.events import TERMINAL_EVENTS
from durably.core.runs import Run
from durably.core.store import Position, Store
from durably.tasks import begin_task

_LOOK_AFTER_SECONDS: Final = 0.25
_RETRY_SECONDS: Final = 1.0
_PAGE: Final = 500

log = logging.getLogger("durably")


class SilentEnds:
    """Looks at the runs that somebody watches, a moment after another program wrote something."""

    def __init__(
        self,
        store: Store,
        watched: Callable[[], set[str]],
        position: Callable[[], Position],
        found: Callable[[str, Run[Any] | None, Position], None],
    ) -> None:
        self._store = store
        self._watched = watched
        self._position = position
        self._found = found
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    def look_soon(self) -> None:
        """Look once, however often this is asked for meanwhile."""
        self._look_after(_LOOK_AFTER_SECONDS)

    def _look_after(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._looking is not None:
            self._looking.cancel()

    def forget_loop(self) -> None:
        """Forget what was begun on an event loop that is gone."""
        self._timer = self._looking = None

    def _look(self) -> None:
        self._timer = None
        if self._looking is not None and not self._looking.done():
            self.look_soon()
            return
        self._looking = begin_task(self._look_for_ended())

    async def _look_for_ended(self) -> None:
        try:
            for run_id in await self._store.which_ended(self._watched()):
                await self._look_at(run_id)
        except StoreError as error:
            log.warning("cannot look for runs that other programs ended, trying again: %s", error)
            # Nobody else may write anything for a long time, and a stream of such a run has no other way to its end.
            self._look_after(_RETRY_SECONDS)

    async def _look_at(self, run_id: str) -> None:
        try:
            run, position = await self._store.snapshot(run_id)
            if await self._is_on_its_way(run_id, position):
                self.look_soon()
            else:
                self._found(run_id, run, position)
        except StoreError:
            raise
        except Exception:
            # The others are waited for too.
            log.exception("the end of run %s, by another program, cannot be told", run_id)

    async def _is_on_its_way(self, run_id: str, end: Position) -> bool:
        """Tell whether what ended a run stands in the log up to `end` and has yet to arrive here."""
        # Not every row has something that is passed on, so the log may have been followed further than we know.
        position = self._position()
        while position.row < end.row:
            page = await self._store.events_after(position, _PAGE)
            if any(isinstance(each.event, TERMINAL_EVENTS) and each.event.run_id == run_id for each in page.events):
                return True
            if not page.events:
                break
            position = page.events[-1].position
        return False
