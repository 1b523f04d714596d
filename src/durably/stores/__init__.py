"""Databases that can hold runs, each an adapter of the port in `durably.core.store`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

from durably.core.clock import Clock
from durably.core.errors import ValidationError
from durably.core.store import Store

_FORMS = "sqlite:///file.db, sqlite://:memory:, postgresql://host/name, libsql://host?authToken=..."

_PASSWORD: Final = re.compile(r"(//[^:/@]*:).*@")
_TOKEN: Final = re.compile(r"(authToken=)[^&]*")


def open_store(database: str | Path | Store, clock: Clock) -> Store:
    """Return the store for a URL, a path or a store; the driver is imported only here.

    Raises `ValidationError` for a URL of no known kind, or one whose extra is not installed.

    >>> open_store("sqlite:///jobs.db", SystemClock())
    """
    if isinstance(database, Path):
        return _open_sqlite(str(database), clock, "")
    if not isinstance(database, str):
        return _as_store(database)
    match _scheme_of(database):
        case "sqlite":
            path, _, query = database.partition("://")[2].partition("?")
            return _open_sqlite(path if path == ":memory:" else _file_of(database, path), clock, query)
        case "postgresql" | "postgres":
            return _open_postgres(database, clock)
        case "libsql" | "http" | "https":
            return _open_libsql(database, clock)
        case _:
            raise _no_such_form(database)


def _scheme_of(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError as error:
        raise _no_such_form(url) from error


def _no_such_form(url: str, forms: str = f"one of {_FORMS}") -> ValidationError:
    # A mistyped URL ends in logs, its password must not.
    shown = _TOKEN.sub(r"\1***", _PASSWORD.sub(r"\1***@", url))
    return ValidationError(f"Invalid database {shown!r}: expected {forms}", field="database", value=shown)


def _open_sqlite(path: str, clock: Clock, query: str) -> Store:
    from durably.stores.sqlite import open_sqlite  # noqa: PLC0415 - a driver is imported only by those who use it

    return open_sqlite(path, clock, query)


def _open_postgres(url: str, clock: Clock) -> Store:
    try:
        import asyncpg  # noqa: F401, PLC0415 - asked for here, so that the message can say what to install
    except ImportError as error:
        raise ValidationError(
            "PostgreSQL needs a driver that is not installed: pip install 'durably[postgres]'",
            field="database",
            value="postgresql",
        ) from error
    from durably.stores.postgres import open_postgres  # noqa: PLC0415 - a driver is imported only by those who use it

    return open_postgres(url, clock)


def _open_libsql(url: str, clock: Clock) -> Store:
    parts = urlsplit(url)
    if parts.scheme == "libsql" and not parts.netloc:
        # A local libSQL database is a SQLite file: libsql:jobs.db, libsql:///jobs.db, libsql:////srv/jobs.db.
        has_path = parts.path != "" and not url.startswith("libsql://")
        return _open_sqlite(parts.path if has_path else _file_of(url, parts.path), clock, parts.query)
    try:
        import httpx  # noqa: F401, PLC0415 - asked for here, so that the message can say what to install
    except ImportError as error:
        raise ValidationError(
            "A libSQL server needs an HTTP client that is not installed: pip install 'durably[libsql]'",
            field="database",
            value=parts.scheme,
        ) from error
    from durably.stores.libsql import open_libsql  # noqa: PLC0415 - a driver is imported only by those who use it

    return open_libsql(url, clock)


def _file_of(url: str, path: str) -> str:
    # As in SQLAlchemy: three slashes and a relative path, four and an absolute one.
    if not path.startswith("/") or path == "/":
        raise _no_such_form(url, "sqlite:///relative.db, sqlite:////absolute.db or sqlite://:memory:")
    return path[1:]


def _as_store(database: object) -> Store:
    # Not isinstance: since Python 3.12 that looks past `__getattr__`, by which a store that wraps another answers.
    if all(hasattr(database, verb) for verb in vars(Store) if not verb.startswith("_")):
        return cast("Store", database)
    raise ValidationError(
        f"Invalid database {database!r}: expected a URL ({_FORMS}), a Path or a Store", field="database", value=database
    )
