"""How a remote database comes to the newest version of the tables."""

from __future__ import annotations

from typing import Final

from durably.core.errors import SchemaTooNewError, StoreError
from durably.stores.libsql.client import Client
from durably.stores.libsql.hrana import Statement, StatementFailedError
from durably.stores.libsql.statements import NOW
from durably.stores.sql.sqlite_tables import MIGRATIONS, NEWEST, VERSIONS_TABLE

_TABLES: Final = """
-- Which of the tables that matter are there.
SELECT name FROM sqlite_master
WHERE type IN ('table', 'view') AND name IN ('durably_schema_versions', 'durably_runs')
"""
_VERSION: Final = "SELECT COALESCE(MAX(version), 0) FROM durably_schema_versions"
_ADD_VERSION: Final = f"INSERT INTO durably_schema_versions (version, applied_at) VALUES (?, {NOW})"


async def migrate(client: Client) -> None:
    """Apply what is missing, each version in a transaction. Raises `SchemaTooNewError`, `StoreError`."""
    found = await _version(client)
    for version, statements in MIGRATIONS:
        if version <= found:
            continue
        try:
            # The row of the version comes first: where another process was faster its key is taken, and all
            # of this is undone.
            await client.transact(
                [
                    Statement(VERSIONS_TABLE),
                    Statement(_ADD_VERSION, (version,)),
                    *map(Statement, statements),
                ]
            )
        except StatementFailedError as failure:
            found = await _version(client)
            if found < version:
                raise client.server.explain(failure) from failure


async def _version(client: Client) -> int:
    name = client.server.address.name
    tables = {row[0] for row in await client.query(Statement(_TABLES))}
    found = 0
    if "durably_schema_versions" in tables:
        ((found,),) = await client.query(Statement(_VERSION))
    if found > NEWEST:
        raise SchemaTooNewError(found=found, known=NEWEST, database=name)
    if found == 0 and "durably_runs" in tables:
        raise StoreError(
            f"{name} has a table 'durably_runs' that durably did not make: it belongs to another application; "
            "use another database"
        )
    return found
