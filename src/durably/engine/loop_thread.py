"""The event loop that a run executes on, as code in any thread uses it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Final

log = logging.getLogger("durably")


class LoopThread:
    """The running event loop, and the thread that it runs in."""

    def __init__(self) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def is_current(self) -> bool:
        """Tell whether the caller is in this thread."""
        return threading.get_ident() == self._thread

    def call(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the event loop: now if this is its thread, else soon."""
        if self.is_current():
            callback()
            return
        try:
            self.loop.call_soon_threadsafe(callback)
        except RuntimeError:
            log.debug("the event loop is closed; nobody is left to tell")
