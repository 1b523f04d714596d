"""How a file comes to the newest version of the tables."""

from __future__ import annotations

import sqlite3

from durably.core.clock import Clock, to_text
from durably.core.errors import SchemaTooNewError, StoreError
from durably.stores.sql.sqlite_tables import MIGRATIONS, NEWEST, VERSIONS_TABLE


def migrate(connection: sqlite3.Connection, clock: Clock, database: str) -> None:
    """Apply what is missing, in one transaction. Raises `SchemaTooNewError`, `StoreError`."""
    if check_version(connection, database) == NEWEST:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(VERSIONS_TABLE)
        # Asked again under the lock: another process may have migrated while this one waited for it.
        found = check_version(connection, database)
        _refuse_foreign_tables(connection, found, database)
        for version, statements in MIGRATIONS:
            if version > found:
                for statement in statements:
                    connection.execute(statement)
                connection.execute(
                    "INSERT INTO durably_schema_versions (version, applied_at) VALUES (?, ?)",
                    (version, to_text(clock.now())),
                )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def check_version(connection: sqlite3.Connection, database: str) -> int:
    """Return the schema version, 0 for none. Raises `SchemaTooNewError`."""
    if not _tables(connection, "durably_schema_versions"):
        return 0
    found: int = connection.execute("SELECT COALESCE(MAX(version), 0) FROM durably_schema_versions").fetchone()[0]
    if found > NEWEST:
        raise SchemaTooNewError(found=found, known=NEWEST, database=database)
    return found


def _refuse_foreign_tables(connection: sqlite3.Connection, found: int, database: str) -> None:
    if found == 0 and (foreign := _tables(connection, "durably_runs")):
        raise StoreError(
            f"{database} has a table {foreign[0]!r} that durably did not make: it belongs to another application; "
            "use another file"
        )


def _tables(connection: sqlite3.Connection, name: str) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name = ?", (name,))
    return [row[0] for row in rows]
