"""The tables, by version, and how a database comes to the newest one.

Version 1 is shared with the TypeScript library and must stay as it is; what follows only adds.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from durably.core.errors import SchemaTooNewError, StoreError
from durably.stores.postgres.connections import Connection, Server, quoted
from durably.stores.postgres.statements import NOW

_VERSION_1: Final = """
CREATE TABLE durably_runs (
  id text PRIMARY KEY, job_name text NOT NULL, input text NOT NULL, status text NOT NULL,
  idempotency_key text, concurrency_key text, labels text DEFAULT '{}' NOT NULL,
  current_step_index integer DEFAULT 0 NOT NULL, completed_step_count integer DEFAULT 0 NOT NULL,
  progress text, output text, error text, lease_owner text, lease_expires_at text,
  lease_generation integer DEFAULT 0 NOT NULL, started_at text, completed_at text,
  created_at text NOT NULL, updated_at text NOT NULL);
CREATE UNIQUE INDEX idx_durably_runs_job_idempotency ON durably_runs (job_name, idempotency_key);
CREATE UNIQUE INDEX idx_durably_runs_pending_concurrency ON durably_runs (job_name, concurrency_key)
  WHERE status = 'pending' AND concurrency_key IS NOT NULL;
CREATE INDEX idx_durably_runs_status_concurrency ON durably_runs (status, concurrency_key);
CREATE INDEX idx_durably_runs_status_created ON durably_runs (status, created_at);
CREATE INDEX idx_durably_runs_job_created ON durably_runs (job_name, created_at);
CREATE INDEX idx_durably_runs_status_lease_expires ON durably_runs (status, lease_expires_at);
CREATE INDEX idx_durably_runs_status_completed ON durably_runs (status, completed_at);
CREATE TABLE durably_run_labels (run_id text NOT NULL, key text NOT NULL, value text NOT NULL);
CREATE UNIQUE INDEX idx_durably_run_labels_pk ON durably_run_labels (run_id, key);
CREATE INDEX idx_durably_run_labels_key_value ON durably_run_labels (key, value);
CREATE TABLE durably_steps (
  id text PRIMARY KEY, run_id text NOT NULL, name text NOT NULL, "index" integer NOT NULL,
  status text NOT NULL, output text, error text, started_at text NOT NULL, completed_at text);
CREATE INDEX idx_durably_steps_run_index ON durably_steps (run_id, "index");
CREATE UNIQUE INDEX idx_durably_steps_completed_unique ON durably_steps (run_id, name) WHERE status = 'completed';
CREATE TABLE durably_logs (
  id text PRIMARY KEY, run_id text NOT NULL, step_name text, level text NOT NULL,
  message text NOT NULL, data text, created_at text NOT NULL);
CREATE INDEX idx_durably_logs_run_created ON durably_logs (run_id, created_at);
"""

_LEASED_KEY: Final = "idx_durably_runs_leased_key"

_VERSION_2: Final = f"""
-- Claims: one range per job, and nothing but what waits.
CREATE INDEX idx_durably_runs_pending ON durably_runs (job_name, created_at, id) WHERE status = 'pending';
-- One lease per concurrency key at a time, whoever claims: the rule itself, beyond every race.
CREATE UNIQUE INDEX {_LEASED_KEY} ON durably_runs (concurrency_key)
  WHERE status = 'leased' AND concurrency_key IS NOT NULL;
-- Runs by label, newest first: ids sort by creation.
CREATE INDEX idx_durably_run_labels_newest ON durably_run_labels (key, value, run_id);
-- Steps update the same rows again and again: with room in the page no index needs to know.
ALTER TABLE durably_runs SET (fillfactor = 80);
CREATE TABLE durably_events (
  position bigserial PRIMARY KEY, origin text NOT NULL, number bigint NOT NULL, events text NOT NULL,
  created_at text NOT NULL);
-- The mark of a transaction: a commit whose answer was lost is found by it, and cannot happen twice.
CREATE UNIQUE INDEX idx_durably_events_mark ON durably_events (origin, number);
-- Short-lived: compressing it costs more than the room.
ALTER TABLE durably_events ALTER COLUMN events SET STORAGE EXTERNAL;
"""

MIGRATIONS: Final = ((1, _VERSION_1), (2, _VERSION_2))
NEWEST: Final = MIGRATIONS[-1][0]

_VERSIONS_TABLE: Final = """
CREATE TABLE IF NOT EXISTS durably_schema_versions (version integer PRIMARY KEY, applied_at text NOT NULL)
"""
_ADD_VERSION: Final = f"INSERT INTO durably_schema_versions (version, applied_at) VALUES ($1, {NOW})"
_FOUND_VERSION: Final = "SELECT COALESCE(MAX(version), 0) AS version FROM durably_schema_versions"
_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtextextended('durably migrate', 0))"

# Not by `to_regclass`: it may answer from a cache that knows nothing of what was committed during a wait.
_TABLE_EXISTS: Final = """
SELECT EXISTS (
  SELECT 1 FROM pg_class AS relation JOIN pg_namespace AS place ON place.oid = relation.relnamespace
  WHERE relation.relname = $1 AND place.nspname = ANY(
    CASE WHEN $2::name IS NULL THEN current_schemas(false) ELSE ARRAY[$2::name] END)
) AS found
"""

# Not left to IF NOT EXISTS, which asks for the right to create before it looks.
_SCHEMA_EXISTS: Final = "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)"


async def migrate(server: Server, connection: Connection) -> None:
    """Apply what is missing, in one transaction. Raises `SchemaTooNewError`, `StoreError`, the driver's errors."""
    if await check_version(server, connection) == NEWEST:
        return
    # Whatever the default is: what is asked for under the lock must be seen as it is then.
    async with connection.transaction(isolation="read_committed"):
        # Indexes on tables of years may take their time, and so may whoever migrates first.
        await connection.execute("SET LOCAL statement_timeout = 0")
        await connection.execute(_ONE_AT_A_TIME)
        if server.schema is not None and not await connection.fetchval(_SCHEMA_EXISTS, server.schema):
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(server.schema)}")
        # Asked again under the lock: another process may have migrated while this one waited for it.
        found = await check_version(server, connection)
        if found == 0 and await _exists(server, connection, "durably_runs"):
            raise StoreError(
                f"{server.name} has a table 'durably_runs' that durably did not make: it belongs to another "
                "application; use another database, or a schema of its own with ?schema=NAME"
            )
        await connection.execute(server.qualified(_VERSIONS_TABLE))
        for version, statements in MIGRATIONS:
            if version > found:
                await _apply(server, connection, statements)
                await connection.execute(server.qualified(_ADD_VERSION), version)


async def _apply(server: Server, connection: Connection, statements: str) -> None:
    try:
        await connection.execute(server.qualified(statements))
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != _LEASED_KEY:
            raise
        # The TypeScript library leaves a run leased whose worker died, and leases the next of its key.
        raise StoreError(
            f"{server.name} has two leased runs of one concurrency key, where only one may be leased "
            f"({error.detail}): stop the workers of the TypeScript library, cancel those that no worker is at any "
            "more, and migrate again"
        ) from error


async def check_version(server: Server, connection: Connection) -> int:
    """Return the schema version, 0 for none. Raises `SchemaTooNewError`, the driver's errors."""
    if not await _exists(server, connection, "durably_schema_versions"):
        return 0
    found: int = (await server.fetch(connection, _FOUND_VERSION))[0]["version"]
    if found > NEWEST:
        raise SchemaTooNewError(found=found, known=NEWEST, database=server.name)
    return found


async def _exists(server: Server, connection: Connection, table: str) -> bool:
    rows = await server.fetch(connection, _TABLE_EXISTS, table, server.schema)
    found: bool = rows[0]["found"]
    return found
