"""The file: how it is opened, what can be wrong with it, and what to say then."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qsl

from durably.core.errors import DurablyError, StoreError, StoreUnavailableError, ValidationError, ValueRefusedError
from durably.stores.sqlite.files import DatabaseFiles

Synchronous = Literal["full", "normal"]
CommitMode = Literal["auto", "in-place", "thread"]

_OPTIONS: Final = {"synchronous": ("full", "normal"), "commit": ("auto", "in-place", "thread")}
_BUSY_SECONDS: Final = 10.0
_CACHED_STATEMENTS: Final = 256

_OLDEST: Final = "3.9"
_NEEDED: Final = "SELECT 1 FROM json_each('[]')"

_UNAVAILABLE: Final = {
    sqlite3.SQLITE_BUSY: "is locked by another process, and stayed so while this one waited",
    sqlite3.SQLITE_LOCKED: "is locked by another connection of this process",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full (or the database reached its page limit); free some space",
    sqlite3.SQLITE_IOERR: "could not be read or written: the disk reports an error; see whether it is full or gone",
    sqlite3.SQLITE_NOMEM: "could not be used: out of memory",
}
_UNUSABLE: Final = {
    sqlite3.SQLITE_NOTADB: "is not a SQLite database: it belongs to another application; use another file",
    sqlite3.SQLITE_CORRUPT: "is damaged; run `PRAGMA integrity_check` on a copy and restore a backup",
    sqlite3.SQLITE_READONLY: "cannot be written: the file or its directory is read-only for this user",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: see that its directory exists, this user may write there, and the "
    "file system is not read-only (SQLite keeps the files -wal and -shm beside it)",
    sqlite3.SQLITE_PERM: "cannot be opened: this user may not",
}


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """What the query of a `sqlite:///` URL may say."""

    synchronous: Synchronous = "full"
    commit: CommitMode = "auto"

    @staticmethod
    def parse(query: str) -> SqliteOptions:
        """Return the options of a URL's query. Raises `ValidationError` naming an unknown one."""
        chosen: dict[str, str] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name not in _OPTIONS:
                raise ValidationError(
                    f"Invalid database option {name!r}: SQLite knows {', '.join(_OPTIONS)}",
                    field="database",
                    value=name,
                )
            if value not in _OPTIONS[name]:
                raise ValidationError(
                    f"Invalid database option {name}={value!r}: must be one of {', '.join(_OPTIONS[name])}",
                    field="database",
                    value=value,
                )
            chosen[name] = value
        return SqliteOptions(**chosen)  # type: ignore[arg-type] # each value was checked against its literals above


class Database:
    """One SQLite database, in a file or in memory, and the connections to it."""

    def __init__(self, path: str, options: SqliteOptions) -> None:
        self.in_memory = path == ":memory:"
        self.path = path if self.in_memory else str(Path(path).absolute())
        self.options = options
        self.files: Final = DatabaseFiles(self.path, self.name)

    @property
    def name(self) -> str:
        """Return the database as messages name it."""
        return "the in-memory database" if self.in_memory else f"database {self.path}"

    def connect(self, *, writes: bool) -> sqlite3.Connection:
        """Open a connection that may be passed between threads, one at a time."""
        self.files.refuse_after_fork()
        if not self.in_memory and not (directory := Path(self.path).parent).is_dir():
            raise StoreError(f"{self.name} cannot be opened: there is no directory {directory}; create it first")
        if not self.in_memory and Path(self.path).is_dir():
            raise StoreError(f"{self.name} cannot be opened: it is a directory; name a file in it")
        # SQLite would make a new file in place of a removed one.
        self.files.check()
        self.files.check_not_emptied()
        with self.errors():
            connection = sqlite3.connect(
                self.path,
                timeout=_BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=_CACHED_STATEMENTS,
            )
            try:
                self._prepare(connection, writes=writes)
            except BaseException:
                connection.close()
                raise
        return connection

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the driver's errors into ours, which name the database and say what to do."""
        try:
            yield
        except sqlite3.Error as error:
            raise self.explain(error) from error

    def explain(self, error: sqlite3.Error | OverflowError) -> DurablyError:
        """Return our error for one of the driver's."""
        if "no such table: durably_" in str(error):
            return StoreError(f"{self.name} has no durably tables yet: call init() or migrate() first ({error})")
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        # The driver itself counts in 32 bits, and does not ask SQLite beyond them.
        if code == sqlite3.SQLITE_TOOBIG or isinstance(error, OverflowError):
            return ValueRefusedError(f"{self.name} takes no value of this size ({error})")
        if code in _UNAVAILABLE:
            return StoreUnavailableError(f"{self.name} {_UNAVAILABLE[code]} ({error})")
        return StoreError(f"{self.name} {_UNUSABLE.get(code, 'failed')} ({error})")

    def _prepare(self, connection: sqlite3.Connection, *, writes: bool) -> None:
        try:
            connection.execute(_NEEDED)
        except sqlite3.OperationalError as error:
            # Asked for in place of the number: before 3.38 the JSON functions could be left out.
            if (error.sqlite_errorcode & 0xFF) != sqlite3.SQLITE_ERROR:
                raise
            raise StoreError(
                f"{self.name} cannot be used: this Python has SQLite {sqlite3.sqlite_version}, and durably needs "
                f"{_OLDEST} or newer with JSON functions; use a Python that has one ({error})"
            ) from error
        if self.in_memory:
            return
        if sys.platform == "emscripten":
            # One connection per database there, and no shared memory for the index of the WAL.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA temp_store = MEMORY")
        if writes:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute(f"PRAGMA synchronous = {self.options.synchronous}")
            # The writer waits for the lock itself, and never on the event loop.
            connection.execute("PRAGMA busy_timeout = 0")
        else:
            connection.execute("PRAGMA query_only = ON")
