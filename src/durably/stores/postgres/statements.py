"""The SQL of the PostgreSQL store. Each statement has one purpose, and is a transaction of its own.

Statements that write take `$1` and `$2` as their mark (see `marks.py`) and store what they have to tell in
`durably_events` under it; but for those that may be done twice, and tell nothing: renewals of leases, and what sweeps
up after others. The server's clock is the only one that decides.
"""

from typing import Final

from durably.stores.sql.rows import LOG_COLUMNS, PROGRESS_STORED_SECONDS, RUN_COLUMNS, STEP_COLUMNS

_TEXT_FORM: Final = """'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'"""

NOW: Final = f"to_char(clock_timestamp() AT TIME ZONE 'UTC', {_TEXT_FORM})"


BATCH_NOW: Final = f"to_char(statement_timestamp() AT TIME ZONE 'UTC', {_TEXT_FORM})"
"""The same for every row of a statement, where nothing depends on how long it waited."""


def _later(seconds: str) -> str:
    return f"to_char((clock_timestamp() + make_interval(secs => {seconds})) AT TIME ZONE 'UTC', {_TEXT_FORM})"


def _columns_of(alias: str) -> str:
    return ", ".join(f"{alias}.{column}" for column in RUN_COLUMNS.split(", "))


def _event(event_type: str, row: str, *more: str) -> str:
    """Return the expression for the stored form of an event about a run; `core/event_codec.py` reads it."""
    parts = [
        f"""'{{"type":"{event_type}","timestamp":"'""",
        "moment.now",
        """'","run_id":'""",
        f"to_json({row}.id)",
        """',"job_name":'""",
        f"to_json({row}.job_name)",
        """',"labels":'""",
        f"{row}.labels",
        *more,
        "'}'",
    ]
    return f"concat({', '.join(parts)})"


def _told(event: str, rows: str, order: str, condition: str = "true") -> str:
    return f"""told AS (
  INSERT INTO durably_events (origin, number, events, created_at)
  SELECT $1, $2, '[' || string_agg({event}, ',' ORDER BY {order}) || ']', moment.now
  FROM {rows} CROSS JOIN moment WHERE {condition}
  GROUP BY moment.now
  RETURNING position
)"""


_MOMENT: Final = f"moment AS MATERIALIZED (SELECT {NOW} AS now)"
_KEY_IS_FREE: Final = """(waiting.concurrency_key IS NULL OR NOT EXISTS (
        SELECT 1 FROM durably_runs AS holder
        WHERE holder.concurrency_key = waiting.concurrency_key AND holder.status = 'leased'))"""

# --- trigger ---------------------------------------------------------------------------------------

RUNS_BY_KEYS: Final = f"""
-- What the keys of new runs stand for: the runs of their ids, of their idempotency keys, and those that wait.
SELECT {RUN_COLUMNS} FROM durably_runs WHERE id = ANY($1::text[])
UNION
SELECT {_columns_of("run")} FROM unnest($2::text[], $3::text[]) AS wanted(job_name, key)
JOIN durably_runs AS run ON run.job_name = wanted.job_name AND run.idempotency_key = wanted.key
UNION
SELECT {_columns_of("run")} FROM unnest($4::text[], $5::text[]) AS wanted(job_name, key)
JOIN durably_runs AS run
  ON run.job_name = wanted.job_name AND run.concurrency_key = wanted.key AND run.status = 'pending'
"""

# --- claim -----------------------------------------------------------------------------------------

_LEASED_TOLD: Final = _told(
    _event(
        "run:leased",
        "leased",
        """',"lease_owner":'""",
        "to_json(leased.lease_owner)",
        """',"lease_expires_at":"'""",
        "leased.lease_expires_at",
        # The input is quoted, for it is not always JSON, and not every PostgreSQL can tell.
        """'","input_text":'""",
        "to_json(leased.input)",
    ),
    "leased",
    "leased.created_at, leased.id",
)

CLAIM_RUNS: Final = f"""
-- Lease the oldest waiting runs of these jobs whose key nobody holds; one range of an index per job.
WITH moment AS MATERIALIZED (SELECT {NOW} AS now, {_later("$6")} AS expires),
candidate AS MATERIALIZED (
  SELECT run.* FROM unnest($3::text[]) AS job(name)
  CROSS JOIN LATERAL (
    SELECT waiting.id, waiting.concurrency_key, waiting.created_at FROM durably_runs AS waiting
    WHERE waiting.job_name = job.name AND waiting.status = 'pending'
      AND {_KEY_IS_FREE}
    ORDER BY waiting.created_at, waiting.id
    LIMIT $4
    FOR UPDATE SKIP LOCKED
  ) AS run
),
chosen AS MATERIALIZED (
  SELECT id FROM (
    SELECT candidate.*, row_number() OVER (
      PARTITION BY concurrency_key IS NULL, COALESCE(concurrency_key, id) ORDER BY created_at, id) AS place
    FROM candidate
  ) AS ranked
  -- Two claimers of one key, by runs of two jobs, must not wait for each other in the unique index.
  WHERE place = 1 AND (concurrency_key IS NULL OR pg_try_advisory_xact_lock(hashtextextended(concurrency_key, 0)))
  ORDER BY created_at, id
  LIMIT $4
),
leased AS (
  UPDATE durably_runs AS run
  SET status = 'leased', lease_owner = $5, lease_expires_at = moment.expires,
      lease_generation = run.lease_generation + 1, started_at = COALESCE(run.started_at, moment.now),
      updated_at = moment.now
  FROM chosen CROSS JOIN moment
  WHERE run.id = chosen.id
  RETURNING {_columns_of("run")}
),
{_LEASED_TOLD}
SELECT {_columns_of("leased")}, moment.now, (SELECT position FROM told) AS position,
  EXISTS (SELECT 1 FROM durably_runs WHERE status = 'leased' AND lease_expires_at <= moment.now) AS has_expired,
  leased.id IS NULL AND EXISTS (
    SELECT 1 FROM durably_runs AS waiting
    WHERE waiting.job_name = ANY($3::text[]) AND waiting.status = 'pending' AND {_KEY_IS_FREE}
  ) AS is_contended
FROM moment LEFT JOIN leased ON true
ORDER BY leased.created_at, leased.id
"""

_FAILED_TOLD: Final = _told(
    _event("run:fail", "returned", """',"error":'""", "to_json($3::text)"),
    "returned",
    "returned.id",
    "returned.status = 'failed'",
)

_RETURN: Final = f"""
returned AS (
  UPDATE durably_runs AS run
  SET status = CASE WHEN gone.is_replaced THEN 'failed' ELSE 'pending' END,
      error = CASE WHEN gone.is_replaced THEN $3 ELSE run.error END,
      completed_at = CASE WHEN gone.is_replaced THEN moment.now ELSE run.completed_at END,
      lease_owner = NULL, lease_expires_at = NULL, updated_at = moment.now
  FROM gone CROSS JOIN moment
  WHERE run.id = gone.id
  RETURNING run.id, run.job_name, run.labels, run.status
),
dropped AS (
  DELETE FROM durably_steps AS step USING returned
  WHERE step.run_id = returned.id AND returned.status = 'failed' AND NOT $4
),
{_FAILED_TOLD}
SELECT returned.id, returned.job_name, returned.labels, returned.status, moment.now,
  (SELECT position FROM told) AS position
FROM returned CROSS JOIN moment ORDER BY returned.id
"""
_IS_REPLACED: Final = """EXISTS (
    SELECT 1 FROM durably_runs AS waiting
    WHERE waiting.job_name = lost.job_name AND waiting.concurrency_key = lost.concurrency_key
      AND waiting.status = 'pending') AS is_replaced"""

RECOVER_EXPIRED: Final = f"""
-- Put runs back whose lease ran out; one whose place in the queue is taken has failed.
WITH {_MOMENT},
gone AS MATERIALIZED (
  SELECT lost.id, {_IS_REPLACED} FROM durably_runs AS lost
  WHERE lost.status = 'leased' AND lost.lease_expires_at <= (SELECT now FROM moment)
  ORDER BY lost.id
  FOR UPDATE SKIP LOCKED
),
{_RETURN}
"""

RELEASE_RUNS: Final = f"""
-- Give back runs that we still hold; one whose place in the queue is taken has failed.
WITH {_MOMENT},
gone AS MATERIALIZED (
  SELECT run.* FROM unnest($5::text[], $6::int[]) AS claim(run_id, generation)
  CROSS JOIN LATERAL (
    SELECT lost.id, {_IS_REPLACED} FROM durably_runs AS lost
    WHERE lost.id = claim.run_id AND lost.status = 'leased' AND lost.lease_generation = claim.generation
    FOR UPDATE
  ) AS run
),
{_RETURN}
"""

RENEW_LEASES: Final = f"""
-- Extend leases, but only those still held and in time. A row that is just being written is passed over
-- here, because whoever waits for one row while holding others may wait forever.
WITH moment AS MATERIALIZED (SELECT {NOW} AS now, {_later("$3")} AS expires),
held AS MATERIALIZED (
  SELECT run.id FROM unnest($1::text[], $2::int[]) AS claim(run_id, generation)
  CROSS JOIN LATERAL (
    SELECT mine.id FROM durably_runs AS mine
    WHERE mine.id = claim.run_id AND mine.status = 'leased' AND mine.lease_generation = claim.generation
      AND mine.lease_expires_at > (SELECT now FROM moment)
    FOR UPDATE SKIP LOCKED
  ) AS run
)
UPDATE durably_runs AS run SET lease_expires_at = moment.expires, updated_at = moment.now
FROM held CROSS JOIN moment
WHERE run.id = held.id
RETURNING run.id, run.lease_expires_at
"""

RENEW_LEASE: Final = f"""
-- Extend one lease, after whatever is being written to its run.
UPDATE durably_runs SET lease_expires_at = {_later("$3")}, updated_at = {NOW}
WHERE id = $1 AND status = 'leased' AND lease_generation = $2 AND lease_expires_at > {NOW}
RETURNING id, lease_expires_at
"""

# --- cancel, delete, purge -------------------------------------------------------------------------

CANCEL_RUN: Final = f"""
-- End a run from outside.
WITH {_MOMENT},
ended AS (
  UPDATE durably_runs AS run
  SET status = 'cancelled', lease_owner = NULL, lease_expires_at = NULL, completed_at = moment.now,
      updated_at = moment.now
  FROM moment
  WHERE run.id = $3 AND run.status IN ('pending', 'leased')
  RETURNING {_columns_of("run")}
),
dropped AS (DELETE FROM durably_steps AS step USING ended WHERE step.run_id = ended.id AND NOT $4),
{_told(_event("run:cancel", "ended"), "ended", "ended.id")}
SELECT {_columns_of("ended")}, (SELECT position FROM told) AS position FROM ended
"""

_DELETE: Final = f"""
steps AS (DELETE FROM durably_steps AS part USING gone WHERE part.run_id = gone.id),
logs AS (DELETE FROM durably_logs AS part USING gone WHERE part.run_id = gone.id),
labels AS (DELETE FROM durably_run_labels AS part USING gone WHERE part.run_id = gone.id),
{_told(_event("run:delete", "gone"), "gone", "gone.id")}
SELECT gone.id, gone.job_name, gone.labels, moment.now, (SELECT position FROM told) AS position
FROM gone CROSS JOIN moment ORDER BY gone.id
"""

DELETE_RUN: Final = f"""
-- Delete a run that has ended, and all that belongs to it.
WITH {_MOMENT},
gone AS (
  DELETE FROM durably_runs WHERE id = $3 AND status IN ('completed', 'failed', 'cancelled')
  RETURNING id, job_name, labels
),
{_DELETE}
"""

DROP_STEPS: Final = "DELETE FROM durably_steps WHERE run_id = ANY($1::text[])"

DROP_LOGS: Final = "DELETE FROM durably_logs WHERE run_id = ANY($1::text[])"

PURGE_RUNS: Final = f"""
-- Delete the runs that ended first; one range of an index per status, so that the limit ends the search. Events wait
-- for the end of the statement: it takes no more runs than have $5 steps and log lines together, but always one.
WITH {_MOMENT},
ended AS MATERIALIZED (
  SELECT run.id, run.completed_at FROM unnest(ARRAY['completed', 'failed', 'cancelled']) AS ended(status)
  CROSS JOIN LATERAL (
    SELECT id, completed_at FROM durably_runs
    WHERE durably_runs.status = ended.status AND completed_at <= $3
    ORDER BY completed_at, id
    LIMIT $4
    FOR UPDATE SKIP LOCKED
  ) AS run
  ORDER BY run.completed_at, run.id
  LIMIT $4
),
weighed AS (
  SELECT ended.*, (
    SELECT count(*) FROM (
      (SELECT 1 FROM durably_logs AS part WHERE part.run_id = ended.id LIMIT $5)
      UNION ALL
      (SELECT 1 FROM durably_steps AS part WHERE part.run_id = ended.id LIMIT $5)
    ) AS parts
  ) AS weight
  FROM ended
),
oldest AS MATERIALIZED (
  SELECT id FROM (
    SELECT id, sum(weight) OVER queue AS weight, row_number() OVER queue AS place FROM weighed
    WINDOW queue AS (ORDER BY completed_at, id)
  ) AS summed
  WHERE weight <= $5 OR place = 1
),
gone AS (
  DELETE FROM durably_runs AS run USING oldest WHERE run.id = oldest.id RETURNING run.id, run.job_name, run.labels
),
{_DELETE}
"""

# --- reads -----------------------------------------------------------------------------------------

RUN_BY_IDEMPOTENCY_KEY: Final = f"""
SELECT {RUN_COLUMNS} FROM durably_runs WHERE job_name = $1 AND idempotency_key = $2
"""

RUN_BY_ID: Final = f"SELECT {RUN_COLUMNS} FROM durably_runs WHERE id = $1"

RUNS_BY_ID: Final = f"SELECT {RUN_COLUMNS} FROM durably_runs WHERE id = ANY($1::text[]) ORDER BY created_at, id"

WHICH_ENDED: Final = """
-- Those of some runs that are not active: ended, or gone.
SELECT id FROM unnest($1::text[]) AS wanted(id)
WHERE NOT EXISTS (SELECT 1 FROM durably_runs AS run WHERE run.id = wanted.id AND run.status IN ('pending', 'leased'))
"""

STEPS_OF_RUN: Final = f"""
SELECT {STEP_COLUMNS} FROM durably_steps WHERE run_id = $1 ORDER BY "index", started_at, id
"""

STEPS_BY_ID: Final = "SELECT id FROM durably_steps WHERE id = ANY($1::text[])"

LOGS_OF_RUN: Final = f"SELECT {LOG_COLUMNS} FROM durably_logs WHERE run_id = $1 ORDER BY created_at, id"

CHECKPOINTS_OF_RUN: Final = """
-- Everything a resume needs, in one read.
SELECT name, output FROM durably_steps WHERE run_id = $1 AND status = 'completed'
"""

SNAPSHOT: Final = f"""
-- A run, and which later rows of the event log are part of that view of it.
SELECT {_columns_of("run")},
  ARRAY(SELECT position FROM durably_events WHERE position > $2 ORDER BY position) AS later,
  ARRAY(SELECT position FROM durably_events WHERE position > $2 AND strpos(events, $1) > 0 ORDER BY position) AS about
FROM (VALUES (1)) AS one LEFT JOIN durably_runs AS run ON run.id = $1
"""

ROWS_ABOUT_RUN: Final = """
-- Which rows of a part of the event log tell of a run.
SELECT ARRAY(SELECT position FROM durably_events WHERE position > $2 AND position <= $3 AND strpos(events, $1) > 0
             ORDER BY position) AS about
"""

# --- events ----------------------------------------------------------------------------------------

STORE_EMPTY_MARK: Final = f"""
-- Take the place of a transaction whose answer was lost, unless it was committed; one under way is waited for.
INSERT INTO durably_events (origin, number, events, created_at) VALUES ($1, $2, '[]', {NOW})
ON CONFLICT (origin, number) DO NOTHING
"""

EVENTS_OF_MARK: Final = """
-- What stands under a mark.
SELECT position, events FROM durably_events WHERE origin = $1 AND number = $2
"""

LAST_GIVEN_POSITION: Final = """
SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS position FROM durably_events_position_seq
"""

WRITERS_UNDER_WAY: Final = """
-- The transactions that may have taken a position and are not committed: each has this lock until all see it.
SELECT virtualtransaction AS id FROM pg_locks
WHERE relation = to_regclass($1) AND mode = 'RowExclusiveLock' AND locktype = 'relation'
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

FIRST_EVENT_ROW: Final = "SELECT COALESCE(MIN(position), 0) AS position FROM durably_events"

EVENTS_AFTER: Final = """
SELECT position, origin, number, events FROM durably_events WHERE position > $1 ORDER BY position LIMIT $2
"""

RECENT_EVENTS_OF_RUN: Final = f"""
-- The newest rows that speak of a run, among those that are no older than what progress waits to be stored.
WITH newest AS MATERIALIZED (
  SELECT to_char(
    (created_at::timestamptz - interval '{PROGRESS_STORED_SECONDS} seconds') AT TIME ZONE 'UTC', {_TEXT_FORM}
  ) AS since
  FROM durably_events WHERE position <= $2 ORDER BY position DESC LIMIT 1
)
SELECT events FROM durably_events
WHERE position > $2 - 500 AND position <= $2
  AND CASE WHEN created_at < (SELECT since FROM newest) THEN false ELSE strpos(events, $1) > 0 END
ORDER BY position DESC LIMIT 20
"""

TRIM_EVENTS: Final = f"""
-- Drop what is too old or too much. Only the oldest rows are looked at: those behind them are younger. The newest row
-- stays, as the witness of where the log stands.
WITH newest AS MATERIALIZED (SELECT max(position) AS position FROM durably_events),
oldest AS MATERIALIZED (SELECT position, created_at FROM durably_events ORDER BY position LIMIT $3),
gone AS (
  DELETE FROM durably_events WHERE position IN (
    SELECT oldest.position FROM oldest CROSS JOIN newest
    WHERE oldest.position < newest.position
      AND (oldest.created_at < {_later("-$1::float8")} OR oldest.position <= newest.position - $2::bigint))
  RETURNING 1
)
SELECT count(*) AS count FROM gone
"""

NOTIFY: Final = "SELECT pg_notify($1, $2)"
