"""The door through which time comes in, and the one text form of an instant."""

from datetime import UTC, datetime
from typing import Final, Protocol

_MILLISECONDS: Final = tuple(f"{milliseconds:03d}Z" for milliseconds in range(1_000))


class Clock(Protocol):
    """Tells the time of day and a time that only moves forward."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps."""
        ...


_second: tuple[datetime, str] = (datetime.fromtimestamp(0, UTC), "1970-01-01T00:00:00.")
"""A full second and its text: most instants are of the same second as the one before."""
_other_second = _second
"""The one before it: now, and when a lease ends, are asked for in turns."""


def to_text(instant: datetime) -> str:
    """Return `instant` as `YYYY-MM-DDTHH:MM:SS.mmmZ`, the form that sorts as text.

    >>> to_text(datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC))
    '2026-01-02T03:04:05.678Z'
    """
    global _second, _other_second  # noqa: PLW0603 - tuples, each read and written at once: any thread may do either
    if instant.tzinfo is not UTC:
        instant = instant.astimezone(UTC)
    second, text = _second
    since = instant - second
    if since.days or since.seconds:
        (second, text), _other_second = _other_second, (second, text)
        since = instant - second
        if since.days or since.seconds:
            second = instant.replace(microsecond=0)
            text = f"{second.isoformat()[:19]}."
        _second = (second, text)
    return text + _MILLISECONDS[instant.microsecond // 1_000]


def from_text(text: str) -> datetime:
    """Return the aware instant that `text` stands for.

    >>> from_text("2026-01-02T03:04:05.678Z")
    datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=datetime.timezone.utc)
    """
    return datetime.fromisoformat(text).astimezone(UTC)
