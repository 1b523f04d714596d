"""What is decided by measurement: where to commit, and when to move the write-ahead log into the database."""

from __future__ import annotations

import sqlite3
from typing import Final

from durably.stores.sqlite.database import CommitMode

_SLOW_COMMIT_SECONDS: Final = 0.001
_FAST_COMMIT_SECONDS: Final = 0.0005
_PACE_WEIGHT: Final = 0.1
_PAGES_PER_COMMIT: Final = 10
_CHANGES_PER_PAGE: Final = 8
_TOLD_PER_PAGE: Final = 2_048
"""What is large stands in its row and again in the log of events: half of a page of 4,096 bytes."""
_PAGES_PER_CHECKPOINT: Final = 1_000
_MOST_CORRECTION: Final = 2.0
_QUICK_CHECKPOINT_SECONDS: Final = 0.002


class CommitPace:
    """Decides from the commits seen so far whether the event loop can afford the next one."""

    def __init__(self, mode: CommitMode) -> None:
        self._mode = mode
        self._seconds = 0.0
        self._in_place = mode != "thread"

    def saw(self, seconds: float) -> None:
        """Take note of how long one commit took."""
        self._seconds += _PACE_WEIGHT * (seconds - self._seconds)
        if self._mode == "auto":
            # Two thresholds, so that a disk in between does not make it change at every commit.
            self._in_place = self._seconds < (_SLOW_COMMIT_SECONDS if self._in_place else _FAST_COMMIT_SECONDS)

    def is_affordable_in_place(self, *, may_take_long: bool = False) -> bool:
        """Tell whether to commit on the event loop; what its statements take is not measured, only told."""
        return self._in_place and not (may_take_long and self._mode == "auto")


class CheckpointSchedule:
    """When to move the write-ahead log into the database, and where.

    SQLite would do it by itself inside some unlucky commit, on the event loop, with several flushes, however slow they
    are. How long the log has become it tells only at a checkpoint: until then that is estimated, and the estimate
    corrected.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        self._connection = connection
        self._changes = connection.total_changes
        self._pages = 0.0
        self._correction = 1.0
        self._began_anew = True
        self.is_affordable_in_place = False
        """Whether the last one was quick enough for the event loop: beside the writer, it slows commits down."""

    def saw_commit(self, length_told: int) -> None:
        """Take note of a commit: about how many pages the log has grown by.

        `length_told` is that of the text that the log of events was given.
        """
        changes = self._connection.total_changes
        pages = _PAGES_PER_COMMIT + (changes - self._changes) // _CHANGES_PER_PAGE + length_told // _TOLD_PER_PAGE
        self._pages += self._correction * pages
        self._changes = changes

    def is_due(self) -> bool:
        """Tell, once each time, that the log has grown enough."""
        if self._pages < _PAGES_PER_CHECKPOINT:
            return False
        self._pages = 0.0
        return True

    def saw_checkpoint(self, seconds: float, pages: int, *, is_whole: bool) -> None:
        """Take note of how long it took, how many pages the log had, and whether it begins anew now."""
        self.is_affordable_in_place = seconds < _QUICK_CHECKPOINT_SECONDS
        if self._began_anew:
            correction = self._correction * pages / _PAGES_PER_CHECKPOINT
            self._correction = max(1 / _MOST_CORRECTION, min(_MOST_CORRECTION, correction))
        self._began_anew = is_whole
