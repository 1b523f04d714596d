"""The SQL that writes over the network.

Nothing can be decided between two statements here, so each carries its own condition, and what it did is
read from what it returns. The server's clock is the only one that decides: `NOW` and `later`.
"""

from typing import Final

from durably.stores.sql.rows import LOG_COLUMNS, RUN_COLUMNS, STEP_COLUMNS
from durably.stores.sql.sqlite_queries import PURGEABLE_RUNS

_FORMAT: Final = "'%Y-%m-%dT%H:%M:%fZ', 'now'"
NOW: Final = f"strftime({_FORMAT})"
_TERMINAL: Final = "('completed', 'failed', 'cancelled')"


def later(seconds: float) -> str:
    """Return the argument that makes `NOW` an instant in the future."""
    return f"+{seconds:.3f} seconds"


def _event(kind: str, run: str, more: str = "") -> str:
    """Return the expression for the stored form of one event of the run that a row of `run` is."""
    return f"""
  '[{{"type":"{kind}","timestamp":"' || {NOW} || '","run_id":' || json_quote({run}.id)
  || ',"job_name":' || json_quote({run}.job_name) || ',"labels":' || {run}.labels {more} || '}}]'"""


def _tell(event: str, source: str) -> str:
    """Return a statement that logs one event for each row of `source`."""
    return f"""
INSERT INTO durably_events (origin, events, created_at)
SELECT ?, {event}, {NOW} FROM {source}
RETURNING position, events
"""


# --- trigger ---------------------------------------------------------------------------------------

INSERT_RUNS: Final = """
-- Store new runs without keys.
INSERT INTO durably_runs (id, job_name, input, status, labels, created_at, updated_at)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), 'pending',
       json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[4]')
FROM json_each(?)
"""

INSERT_LABELS: Final = """
-- Make runs findable by their labels, those of them that were stored.
INSERT INTO durably_run_labels (run_id, key, value)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
FROM json_each(?)
WHERE EXISTS (SELECT 1 FROM durably_runs WHERE durably_runs.id = json_extract(value, '$[0]'))
"""

_NO_SUCH_KEY: Final = """
NOT EXISTS (SELECT 1 FROM durably_runs WHERE job_name = ? AND idempotency_key = ?)
"""
_NONE_WAITS: Final = """
NOT EXISTS (
  SELECT 1 FROM durably_runs WHERE job_name = ? AND concurrency_key = ? AND status = 'pending' AND id = COALESCE(?, id)
)
"""

_INSERT_KEYED: Final = """
-- Store a new run unless its keys stand for another one.
INSERT INTO durably_runs
  (id, job_name, input, status, idempotency_key, concurrency_key, labels, created_at, updated_at)
SELECT ?, ?, ?, 'pending', ?, ?, ?, ?, ? WHERE {condition}
RETURNING id
"""

INSERT_UNLESS_KEY_TAKEN: Final = _INSERT_KEYED.format(condition=_NO_SUCH_KEY)
"""Fails where another run of the concurrency key waits: that undoes the transaction."""

INSERT_UNLESS_KEYS_TAKEN: Final = _INSERT_KEYED.format(condition=f"{_NO_SUCH_KEY} AND {_NONE_WAITS}")

TELL_TRIGGERED: Final = """
-- Tell of a new run, if it was stored.
INSERT INTO durably_events (origin, events, created_at)
SELECT ?, ?, created_at FROM durably_runs WHERE id = ?
RETURNING position, events
"""

TELL_COALESCED: Final = _tell(
    _event("run:coalesced", "kept", "|| ',\"skipped_labels\":' || ? || ',\"skipped_input_json\":' || ?"),
    f"""durably_runs AS kept
WHERE kept.job_name = ? AND kept.concurrency_key = ? AND kept.status = 'pending' AND kept.id = COALESCE(?, kept.id)
  AND kept.id <> ? AND {_NO_SUCH_KEY}""",
)

# --- claim -----------------------------------------------------------------------------------------

CLAIM: Final = f"""
-- Take the oldest waiting runs, one of each key and none whose key is held; the generation fences every later
-- write. The empty owner marks them until the end of the transaction.
UPDATE durably_runs
SET status = 'leased', lease_owner = '', lease_expires_at = strftime({_FORMAT}, ?),
    lease_generation = lease_generation + 1, started_at = COALESCE(started_at, {NOW}), updated_at = {NOW}
WHERE id IN (
  SELECT id FROM (
    SELECT id, created_at, row_number() OVER (
      PARTITION BY concurrency_key, CASE WHEN concurrency_key IS NULL THEN id END ORDER BY created_at, id
    ) AS place
    FROM ({{waiting}})
  )
  WHERE place = 1 ORDER BY created_at, id LIMIT ?
)
RETURNING {RUN_COLUMNS}
"""

TELL_LEASED: Final = _tell(
    # The input is quoted, for it is not always JSON, and `json_valid` finds more valid than JSON.
    _event(
        "run:leased",
        "run",
        '|| \',"lease_owner":\' || json_quote(?) || \',"lease_expires_at":"\' || run.lease_expires_at'
        ' || \'","input_text":\' || json_quote(run.input)',
    ),
    "durably_runs AS run WHERE run.status = 'leased' AND run.lease_owner = '' ORDER BY run.created_at, run.id",
)

NAME_OWNER: Final = """
-- Put the owner's name where the mark was.
UPDATE durably_runs SET lease_owner = ? WHERE status = 'leased' AND lease_owner = ''
"""

RENEW_LEASES: Final = f"""
-- Extend leases, but only those still held and in time.
UPDATE durably_runs SET lease_expires_at = strftime({_FORMAT}, ?), updated_at = {NOW}
WHERE id IN (SELECT json_extract(value, '$[0]') FROM json_each(?))
  AND status = 'leased' AND lease_expires_at > {NOW}
  AND EXISTS (
    SELECT 1 FROM json_each(?) AS held
    WHERE json_extract(held.value, '$[0]') = durably_runs.id
      AND json_extract(held.value, '$[1]') = durably_runs.lease_generation
  )
RETURNING id, lease_expires_at
"""

# --- giving back -----------------------------------------------------------------------------------

MARK_EXPIRED: Final = f"""
-- Mark the leases that ran out; the empty expiry stands until the end of the transaction.
UPDATE durably_runs SET lease_expires_at = '' WHERE status = 'leased' AND lease_expires_at <= {NOW}
RETURNING id
"""

MARK_RELEASED: Final = """
-- Mark a lease that its holder gives up.
UPDATE durably_runs SET lease_expires_at = '' WHERE id = ? AND status = 'leased' AND lease_generation = ?
"""

_REPLACED: Final = """
{run}.status = 'leased' AND {run}.lease_expires_at = '' AND EXISTS (
  SELECT 1 FROM durably_runs AS rival
  WHERE rival.job_name = {run}.job_name AND rival.concurrency_key = {run}.concurrency_key
    AND (rival.status = 'pending'
         OR (rival.status = 'leased' AND rival.lease_expires_at = '' AND rival.id < {run}.id))
)
"""

TELL_REPLACED: Final = _tell(
    _event("run:fail", "run", "|| ',\"error\":' || json_quote(?)"),
    f"durably_runs AS run WHERE {_REPLACED.format(run='run')} ORDER BY run.id",
)

DELETE_STEPS_OF_REPLACED: Final = f"""
DELETE FROM durably_steps WHERE run_id IN (
  SELECT run.id FROM durably_runs AS run WHERE {_REPLACED.format(run="run")}
)
"""

FAIL_REPLACED: Final = f"""
-- End marked runs whose place in the queue is taken.
UPDATE durably_runs
SET status = 'failed', error = ?, lease_owner = NULL, lease_expires_at = NULL, completed_at = {NOW},
    updated_at = {NOW}
WHERE {_REPLACED.format(run="durably_runs")}
"""

RETURN_TO_PENDING: Final = f"""
-- Put the other marked runs back.
UPDATE durably_runs SET status = 'pending', lease_owner = NULL, lease_expires_at = NULL, updated_at = {NOW}
WHERE status = 'leased' AND lease_expires_at = ''
"""

# --- fenced writes ---------------------------------------------------------------------------------

# What is written under leases comes as one JSON array for all runs, so that a group is as many statements as one step.


def _held(parts: str, run: str, generation: str) -> str:
    """Return the condition that a part is written under our own lease."""
    return f"""EXISTS (
  SELECT 1 FROM durably_runs AS run
  WHERE run.id = json_extract({parts}.value, '{run}') AND run.status = 'leased'
    AND run.lease_generation = json_extract({parts}.value, '{generation}')
)"""


# A step is recorded again when the answer to the first time was lost on the way.
_IS_NEW: Final = """NOT EXISTS (
  SELECT 1 FROM durably_steps AS stored WHERE stored.id = json_extract(step.value, '$[0]')
)"""

TELL_STEPS: Final = f"""
-- Tell of finished steps, but only under our own leases: id, run, generation, event.
INSERT INTO durably_events (origin, events, created_at)
SELECT ?, '[' || group_concat(json_extract(step.value, '$[3]'), ',') || ']', {NOW} FROM json_each(?) AS step
WHERE {_held("step", "$[1]", "$[2]")} AND {_IS_NEW}
HAVING count(*) > 0
RETURNING position, events
"""

ADVANCE_RUNS: Final = f"""
-- Count finished steps, but only under our own leases: id, run, generation, next index, completed, progress.
UPDATE durably_runs
SET current_step_index = MAX(durably_runs.current_step_index, change.next_index),
    completed_step_count = durably_runs.completed_step_count + change.completed,
    progress = COALESCE(change.latest, durably_runs.progress), updated_at = {NOW}
FROM (
  SELECT json_extract(step.value, '$[1]') AS run_id, json_extract(step.value, '$[2]') AS generation,
    MAX(json_extract(step.value, '$[3]')) AS next_index, SUM(json_extract(step.value, '$[4]')) AS completed,
    MAX(json_extract(step.value, '$[5]')) AS latest
  FROM json_each(?) AS step
  WHERE {_IS_NEW}
  GROUP BY 1, 2
) AS change
WHERE durably_runs.id = change.run_id AND durably_runs.status = 'leased'
  AND durably_runs.lease_generation = change.generation
"""

INSERT_STEPS: Final = f"""
-- Store finished steps, but only under our own leases: the columns, then the generation.
INSERT INTO durably_steps ({STEP_COLUMNS})
SELECT {", ".join(f"json_extract(step.value, '$[{n}]')" for n in range(len(STEP_COLUMNS.split(","))))}
FROM json_each(?) AS step
WHERE {_held("step", "$[1]", "$[9]")} AND {_IS_NEW}
RETURNING id
"""

STEP_IS_STORED: Final = "SELECT 1 FROM durably_steps WHERE id = ?"

TOUCH_RUN: Final = f"""
-- Note the progress of a run, but only under our own lease.
UPDATE durably_runs SET progress = COALESCE(?, progress), updated_at = {NOW}
WHERE id = ? AND status = 'leased' AND lease_generation = ?
RETURNING id
"""

TELL_ENDS: Final = f"""
-- Tell of the end of runs, but only under our own leases: run, generation, event.
INSERT INTO durably_events (origin, events, created_at)
SELECT ?, '[' || group_concat(json_extract(ended.value, '$[2]'), ',') || ']', {NOW} FROM json_each(?) AS ended
WHERE {_held("ended", "$[0]", "$[1]")}
HAVING count(*) > 0
RETURNING position, events
"""

DELETE_STEPS_OF_HELD: Final = f"""
-- Drop the checkpoints of runs that end, but only under our own leases: run, generation.
DELETE FROM durably_steps WHERE run_id IN (
  SELECT json_extract(ended.value, '$[0]') FROM json_each(?) AS ended WHERE {_held("ended", "$[0]", "$[1]")}
)
"""

FINISH_RUNS: Final = f"""
-- End runs, but only under our own leases: run, generation, status, output, error, progress.
UPDATE durably_runs
SET status = json_extract(ended.value, '$[2]'), output = json_extract(ended.value, '$[3]'),
    error = json_extract(ended.value, '$[4]'),
    progress = COALESCE(json_extract(ended.value, '$[5]'), durably_runs.progress),
    lease_owner = NULL, lease_expires_at = NULL, completed_at = {NOW}, updated_at = {NOW}
FROM json_each(?) AS ended
WHERE durably_runs.id = json_extract(ended.value, '$[0]') AND durably_runs.status = 'leased'
  AND durably_runs.lease_generation = json_extract(ended.value, '$[1]')
RETURNING durably_runs.id
"""

IS_FINISHED: Final = """
-- Whether the run ended as its holder says: now, or the first time when the answer was lost on the way.
SELECT 1 FROM durably_runs
WHERE id = ? AND lease_generation = ? AND status = ? AND output IS ? AND error IS ?
"""

INSERT_LOGS: Final = f"""
-- Store log lines, unless their run was deleted meanwhile.
INSERT INTO durably_logs ({LOG_COLUMNS})
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
       json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
       json_extract(value, '$[6]')
FROM json_each(?)
WHERE EXISTS (SELECT 1 FROM durably_runs WHERE durably_runs.id = json_extract(value, '$[1]'))
  AND NOT EXISTS (SELECT 1 FROM durably_logs AS stored WHERE stored.id = json_extract(value, '$[0]'))
"""

# --- cancel, delete, purge -------------------------------------------------------------------------

_ACTIVE_RUN: Final = "SELECT 1 FROM durably_runs WHERE id = ? AND status IN ('pending', 'leased')"
_ENDED_RUN: Final = f"SELECT 1 FROM durably_runs WHERE id = ? AND status IN {_TERMINAL}"

TELL_CANCELLED: Final = _tell(
    _event("run:cancel", "run"), "durably_runs AS run WHERE run.id = ? AND run.status IN ('pending', 'leased')"
)

DELETE_STEPS_OF_ACTIVE: Final = f"DELETE FROM durably_steps WHERE run_id = ? AND EXISTS ({_ACTIVE_RUN})"

CANCEL_RUN: Final = f"""
-- End a run from outside, if it has not ended.
UPDATE durably_runs
SET status = 'cancelled', lease_owner = NULL, lease_expires_at = NULL, completed_at = {NOW}, updated_at = {NOW}
WHERE id = ? AND status IN ('pending', 'leased')
RETURNING id
"""

TELL_DELETED: Final = _tell(
    _event("run:delete", "run"), f"durably_runs AS run WHERE run.id = ? AND run.status IN {_TERMINAL}"
)

DELETE_PARTS_OF_ENDED: Final = tuple(
    f"DELETE FROM {table} WHERE run_id = ? AND EXISTS ({_ENDED_RUN})"
    for table in ("durably_steps", "durably_logs", "durably_run_labels")
)

DELETE_ENDED: Final = f"DELETE FROM durably_runs WHERE id = ? AND status IN {_TERMINAL} RETURNING id"

_PURGED: Final = PURGEABLE_RUNS.replace("?2", "?3").replace("?1", "?2")

TELL_PURGED: Final = f"""
INSERT INTO durably_events (origin, events, created_at)
SELECT ?1, {_event("run:delete", "run")}, {NOW} FROM ({_PURGED}) AS run
RETURNING position, events
"""

DELETE_PARTS_OF_PURGED: Final = tuple(
    f"DELETE FROM {table} WHERE run_id IN (SELECT id FROM ({PURGEABLE_RUNS}))"
    for table in ("durably_steps", "durably_logs", "durably_run_labels")
)

DELETE_PURGED: Final = f"DELETE FROM durably_runs WHERE id IN (SELECT id FROM ({PURGEABLE_RUNS})) RETURNING id"

# --- events ----------------------------------------------------------------------------------------

INSERT_EVENTS: Final = f"""
-- What is told together, as one row.
INSERT INTO durably_events (origin, events, created_at) VALUES (?, ?, {NOW})
RETURNING position, events
"""

EVENTS_OF_OTHERS: Final = """
-- What other processes have told since.
SELECT position, events FROM durably_events WHERE position > ? AND origin <> ? ORDER BY position LIMIT ?
"""

RUN_AND_LAST_EVENT_ROW: Final = f"""
-- A run and the row of the event log up to which that is the truth, at one moment.
SELECT (SELECT COALESCE(MAX(position), 0) FROM durably_events), {RUN_COLUMNS}
FROM (SELECT 1) LEFT JOIN durably_runs ON durably_runs.id = ?
"""

FIRST_ROW_AND_EVENTS_AFTER: Final = """
-- What follows a row, and where the log begins: as one look at it, or what is cleaned away in between would be missing
-- without a sign.
SELECT first.position, later.position, later.events
FROM (SELECT COALESCE(MIN(position), 0) AS position FROM durably_events) AS first
LEFT JOIN (SELECT position, events FROM durably_events WHERE position > ? ORDER BY position LIMIT ?) AS later
ORDER BY later.position
"""

TRIM_EVENTS: Final = f"""
-- Drop what is too old or too much. Only the oldest rows are looked at: those behind them are younger. The newest row
-- stays, so that positions never start again.
DELETE FROM durably_events WHERE position IN (
  SELECT position FROM (
    SELECT position, created_at FROM durably_events
    WHERE position < (SELECT MAX(position) FROM durably_events)
    ORDER BY position LIMIT ?
  )
  WHERE created_at < strftime({_FORMAT}, ?) OR position <= (SELECT MAX(position) FROM durably_events) - ?
)
RETURNING position
"""
