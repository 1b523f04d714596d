"""The embedded default: SQLite through the standard library."""

from durably.core.clock import Clock
from durably.stores.sqlite.database import Database, SqliteOptions
from durably.stores.sqlite.store import SqliteStore


def open_sqlite(path: str, clock: Clock, query: str = "") -> SqliteStore:
    """Return the store for a file, or for `:memory:`; nothing is opened yet.

    `query` is what stands behind the `?` of the URL: `synchronous=full|normal`, `commit=auto|in-place|thread`.
    """
    return SqliteStore(Database(path, SqliteOptions.parse(query)), clock)
