"""What can be wrong with a PostgreSQL server, and what to say then."""

from __future__ import annotations

from typing import Final

import asyncpg

from durably.core.errors import DurablyError, StoreError, StoreUnavailableError, ValueRefusedError

# By SQLSTATE, the longest prefix first to match: what is wrong, and what helps.
_UNAVAILABLE: Final = {
    "08": "the connection was lost",
    "25006": "is read-only: it is a standby; with several hosts in the URL the primary is found by itself",
    "40": "kept colliding with other transactions",
    "53100": "cannot grow: the disk of the server is full; free some space",
    "53300": "has no connection left: raise max_connections, or lower `pool_size` in the URL",
    "53": "is short of resources",
    "55P03": "did not grant a lock in time",
    "57014": "took too long over a statement; see `command_timeout` in the URL",
    "57P": "is shutting down, starting up, or ended our connection",
}
_UNUSABLE: Final = {
    "28": "refused the login: check user, password and pg_hba.conf",
    "3D000": "does not exist on this server: create it first (createdb)",
    "3F000": "lacks the schema of the URL: call init() or migrate() first",
    "42501": "denied it: this user lacks the right",
    "42P01": "has no durably tables yet: call init() or migrate() first",
}
_REFUSED: Final = {
    "22021": "cannot hold this text",
    "22P05": "cannot hold this text",
    "54000": "takes no value of this size",
}

LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.TooManyConnectionsError,
    OSError,
    TimeoutError,
)
"""After these the statement may or may not have been committed."""

COLLISION: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""After these it was not, and the same statement may succeed at once."""

DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


def explain(error: BaseException, name: str) -> BaseException:
    """Return our error for one of the driver's; any other as it is."""
    if isinstance(error, DurablyError) or not isinstance(error, DRIVER_ERRORS):
        return error
    code = getattr(error, "sqlstate", None) or ""
    said = str(error) or type(error).__name__
    if (what := _find(_REFUSED, code)) is not None:
        return ValueRefusedError(f"{name} {what} ({said})")
    if (what := _find(_UNUSABLE, code)) is not None:
        return StoreError(f"{name} {what} ({said})")
    if (what := _find(_UNAVAILABLE, code)) is not None:
        return StoreUnavailableError(f"{name} {what} ({said})")
    if isinstance(error, LOST):
        return StoreUnavailableError(
            f"{name} cannot be reached: see that the server runs and the URL is right ({said})"
        )
    return StoreError(f"{name} failed ({said})")


def _find(messages: dict[str, str], code: str) -> str | None:
    for length in range(len(code), 1, -1):
        if code[:length] in messages:
            return messages[code[:length]]
    return None
