"""A clock that moves only when the test says so."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Final

from durably.core.arguments import aware
from durably.core.errors import ValidationError

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """A `Clock` for tests: leases, retention and timestamps follow it. May be used from any thread.

    It decides what time it is, not how long code waits: `asyncio.sleep` in a job still takes real seconds.

    >>> clock = FakeClock()
    >>> clock.advance(seconds=30)
    >>> clock.now()
    datetime.datetime(2026, 1, 1, 0, 0, 30, tzinfo=datetime.timezone.utc)
    """

    def __init__(self, start: datetime = _START) -> None:
        """Begin at `start`, which must be aware. Raises `ValidationError`."""
        self._lock = threading.Lock()
        self._now = aware("start", start).astimezone(UTC)
        self._monotonic = 0.0

    def now(self) -> datetime:
        """Return the current instant, in UTC."""
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        """Return the seconds that passed since the clock was made; `set_wall_clock` does not change them."""
        with self._lock:
            return self._monotonic

    def advance(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> datetime:
        """Let time pass and return the new instant. Raises `ValidationError` for less than nothing.

        >>> clock.advance(hours=1, seconds=30)
        """
        passed = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if passed < timedelta(0):
            raise ValidationError(
                f"Time cannot pass backwards, by {passed}: to let the wall clock jump, use set_wall_clock",
                field="seconds",
                value=passed,
            )
        with self._lock:
            self._now += passed
            self._monotonic += passed.total_seconds()
            return self._now

    def set_wall_clock(self, now: datetime) -> None:
        """Let the wall clock jump, forwards or back, as when an administrator or NTP corrects it.

        >>> clock.set_wall_clock(clock.now() - timedelta(hours=1))
        """
        with self._lock:
            self._now = aware("now", now).astimezone(UTC)
