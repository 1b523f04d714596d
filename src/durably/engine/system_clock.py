"""The clock of this machine."""

import time
from datetime import UTC, datetime
from typing import Final

_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class SystemClock:
    """Wall clock and monotonic clock, as the operating system has them."""

    _latest = (0, _EPOCH)

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC; in whole milliseconds, as every database stores it."""
        milliseconds = time.time_ns() // 1_000_000
        latest = self._latest
        if latest[0] != milliseconds:
            # Steps and their events ask several times within one millisecond: they share the instant, and
            # with it its text form. One tuple, because the thread of the leases asks too.
            latest = self._latest = (milliseconds, datetime.fromtimestamp(milliseconds / 1000, UTC))
        return latest[1]

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps."""
        return time.monotonic()
