"""The files of a database that is in use: whether they are still the ones that were opened."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final
from weakref import WeakSet

from durably.core.errors import StoreError

_TICK_NANOSECONDS: Final = 50_000_000
_COARSE_TICK_NANOSECONDS: Final = 3_000_000_000
_SECOND: Final = 1_000_000_000

_Identity = tuple[int, int]
_State = tuple[int, int, int]


class DatabaseFiles:
    """The file of one database and the write-ahead log beside it, which it opens and others may take away."""

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        self._name = name
        self._is_link = False
        self._directory = ""
        self._wal_path = ""
        self._identity: _Identity | None = None
        self._wal_identity: _Identity | None = None
        self._directory_checked: _State | None = None
        """The directory as it was when the files in it were last seen to be the same."""

    def opened(self) -> None:
        """Note which file the writer has just opened, for `check`."""
        self._is_link = os.path.islink(self._path)  # noqa: PTH114 - paths are text here, see `_identity`
        # The log is where the file is, not where a link to it is.
        path = os.path.realpath(self._path) if self._is_link else self._path
        self._directory, self._wal_path = os.path.dirname(path), f"{path}-wal"  # noqa: PTH120 - as above
        self._identity = _identity(self._path)
        self._wal_identity = None
        self._directory_checked = None
        _open_here.add(self)

    def closed(self) -> None:
        """Note that every connection is closed."""
        _open_here.discard(self)

    def check(self) -> None:
        """Raise `StoreError` when the files are no longer those that were opened.

        An unlinked file can still be written to, and everything written would be gone with the process.
        """
        if self._identity is None:
            return
        # The log itself is not looked at before every commit: once its times were asked for, Linux notes the next
        # write to the nanosecond, and the flush takes longer for it. What takes a file away changes its directory,
        # which commits leave alone.
        directory = _state_of(self._directory)
        if directory is not None and directory == self._directory_checked:
            return
        self._check_file()
        self._check_wal()
        if directory is not None and _is_settled(directory) and self._wal_identity is not None and not self._is_link:
            self._directory_checked = directory

    def check_not_emptied(self) -> None:
        """Raise `StoreError` when there is nothing left in a file that is in use.

        SQLite would take it for a new one, delete the -wal that belongs to it, and wait for our own lock.
        """
        if self._identity is not None and (file := Path(self._path)).exists() and not file.stat().st_size:
            raise StoreError(
                f"{self._name} was emptied while it was in use. Stop every process that uses it and restore a backup"
            )

    def refuse_after_fork(self) -> None:
        """Raise `StoreError` in a process that was forked while the file was open.

        There SQLite believes that it holds the locks of the parent. When that closes the file, as the last one to
        all appearances, it removes the write-ahead log in which the child stores its commits.
        """
        if _open_at_fork and _identity(self._path) in _open_at_fork:
            raise StoreError(
                f"{self._name} was open when this process was forked, which SQLite does not allow: what is stored here "
                "could be lost. Fork before the database is opened or after it is closed, or start the process by "
                "'spawn' or 'forkserver'"
            )

    def _check_file(self) -> None:
        found = _identity(self._path)
        if found is None:
            raise StoreError(
                f"{self._name} was removed while it was in use; nothing more is written to it. "
                "Put the file back or start the process again with a new one"
            )
        if found != self._identity:
            raise StoreError(
                f"{self._name} was replaced by another file while it was in use; nothing more is written to it. "
                "Start the process again to use the new file"
            )

    def _check_wal(self) -> None:
        wal = _identity(self._wal_path)
        if self._wal_identity is None:
            # SQLite makes it at the first write, and keeps it as long as a connection is open.
            self._wal_identity = wal
        elif wal != self._wal_identity:
            raise StoreError(
                f"{self._name} lost the file -wal beside it while it was in use, and with it what was committed "
                "lately; nothing more is written to it. Stop every process that uses the database, and start them again"
            )


def _identity(path: str) -> _Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - before every commit; a Path takes five times as long
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _state_of(directory: str) -> _State | None:
    try:
        found = os.stat(directory)  # noqa: PTH116 - as above
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _is_settled(directory: _State) -> bool:
    """Tell whether the next change will show: one within a tick of the file system's clock could not be told."""
    *_, changed_at = directory
    # Older file systems count in seconds, or in two of them.
    tick = _COARSE_TICK_NANOSECONDS if changed_at % _SECOND == 0 else _TICK_NANOSECONDS
    return time.time_ns() - changed_at > tick


_open_here: Final[WeakSet[DatabaseFiles]] = WeakSet()
_open_at_fork: Final[set[_Identity]] = set()


def _remember_what_is_open() -> None:
    _open_at_fork.update(files._identity for files in _open_here if files._identity)  # noqa: SLF001 - of this module
    _open_here.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember_what_is_open)
