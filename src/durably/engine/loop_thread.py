"""The event loop that runs execute on, as code in any thread uses it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Final

from durably.engine.threads import context_beside

log = logging.getLogger("durably")


class LoopThread:
    """The running event loop, and the thread that it runs in."""

    def __init__(self) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self.thread_id: Final = threading.get_ident()

    def is_current(self) -> bool:
        """Tell whether the caller is in this thread."""
        return threading.get_ident() == self.thread_id

    def call(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the event loop: now if this is its thread, else soon."""
        if self.is_current():
            callback()
        else:
            self.call_soon(callback)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call `callback` in one of the next turns of the event loop."""
        try:
            self.loop.call_soon_threadsafe(callback, context=context_beside())
        except RuntimeError:
            log.debug("the event loop is closed; nobody is left to tell")
