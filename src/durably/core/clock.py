"""The door through which time comes in, and the one text form of an instant."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Tells the time of day and a time that only moves forward."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps."""
        ...


@lru_cache(maxsize=256)
def to_text(instant: datetime) -> str:
    """Return `instant` as `YYYY-MM-DDTHH:MM:SS.mmmZ`, the form that sorts as text.

    >>> to_text(datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC))
    '2026-01-02T03:04:05.678Z'
    """
    if instant.tzinfo is not UTC:
        instant = instant.astimezone(UTC)
    return instant.isoformat("T", "milliseconds")[:23] + "Z"


def from_text(text: str) -> datetime:
    """Return the aware instant that `text` stands for.

    >>> from_text("2026-01-02T03:04:05.678Z")
    datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=datetime.timezone.utc)
    """
    return datetime.fromisoformat(text).astimezone(UTC)
