"""How many events may wait for a transaction that takes them along, in every SQL store."""

from __future__ import annotations

import logging
from typing import Final

from durably.core.events import DurablyEvent, LogWriteEvent, RunProgressEvent

_MOST_WAITING: Final = 20_000


class Overflow:
    """What is left out of the log of events while too many wait to be written, and says how much that was."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._left_out = 0

    def admits(self, event: DurablyEvent, waiting: int) -> bool:
        """Tell whether an event may wait with `waiting` others; only progress and log lines can be spared."""
        if waiting < _MOST_WAITING or not isinstance(event, RunProgressEvent | LogWriteEvent):
            return True
        self._left_out += 1
        return False

    def tell(self) -> None:
        """Warn of what was left out since the last time, now that those that waited are written."""
        if self._left_out:
            self._log.warning(
                "%d events are missing in the log of events: progress and log lines came faster than they were written",
                self._left_out,
            )
            self._left_out = 0
