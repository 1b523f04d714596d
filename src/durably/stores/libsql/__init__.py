"""Turso and other libSQL servers, over HTTP."""

from durably.core.clock import Clock
from durably.stores.libsql.address import Address
from durably.stores.libsql.store import LibsqlStore


def open_libsql(url: str, clock: Clock) -> LibsqlStore:
    """Return the store for `libsql://host?authToken=...` or `http(s)://`; nothing is asked of the server yet.

    Raises `ValidationError` for a URL that names no server or an unknown option.
    """
    return LibsqlStore(Address.parse(url), clock)
