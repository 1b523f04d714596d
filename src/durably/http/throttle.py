"""Progress in measured doses: per run the first at once, then the latest of each window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from durably.core.store import Position, Recorded

_ENDED_REMEMBERED: Final = 1_000


@dataclass(slots=True)
class _Held:
    since: Position
    latest: Recorded


class ProgressThrottle:
    """Holds back progress events of one stream. `seconds` is the window; 0 holds nothing back.

    Bounded by the runs that told progress within the last window; times are given by the caller. Progress of
    a run that has ended is dropped: a job that cleans up after being cancelled may still tell some.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds: Final = seconds
        # Both in the order of their keys' insertion: windows are equally long, so the first closes first.
        self._closes_at: dict[str, float] = {}
        self._held: dict[str, _Held] = {}
        self._ended: dict[str, None] = {}

    def admits(self, run_id: str, progress: Recorded, now: float) -> bool:
        """Tell whether this progress may go out now; otherwise hold it in place of an earlier one."""
        if run_id in self._ended:
            return False
        if self._seconds == 0:
            return True
        if run_id not in self._closes_at:
            self._closes_at[run_id] = now + self._seconds
            return True
        if run_id in self._held:
            self._held[run_id].latest = progress
        else:
            self._held[run_id] = _Held(progress.position, progress)
        return False

    def due(self, now: float) -> Recorded | None:
        """Return what was held in the first window whose time has come, None when there is no more.

        One at a time: what is left counts as held until it is asked for.
        """
        while self._closes_at:
            run_id, closes_at = next(iter(self._closes_at.items()))
            if closes_at > now:
                return None
            del self._closes_at[run_id]
            if run_id in self._held:
                self._closes_at[run_id] = now + self._seconds
                return self._held.pop(run_id).latest
        return None

    def end(self, run_id: str) -> Recorded | None:
        """Forget a run that has ended and return what was held of it: it must go out before the end."""
        self._closes_at.pop(run_id, None)
        self._ended[run_id] = None
        if len(self._ended) > _ENDED_REMEMBERED:
            del self._ended[next(iter(self._ended))]
        held = self._held.pop(run_id, None)
        return None if held is None else held.latest

    @property
    def next_due(self) -> float | None:
        """Return when the next window closes."""
        return next(iter(self._closes_at.values()), None)

    @property
    def held_since(self) -> Position | None:
        """Return a position from which on everything that is held can be found in the log again."""
        return next((held.since for held in self._held.values()), None)
