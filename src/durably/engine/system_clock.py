"""The only place that asks for the time."""

import time
from datetime import UTC, datetime


class SystemClock:
    """This machine's clocks."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps."""
        return time.monotonic()
