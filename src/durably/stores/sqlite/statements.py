"""The SQL of the SQLite store, understood by SQLite 3.9 and later. Each statement has one purpose."""

from typing import Final

from durably.stores.sql.rows import LOG_COLUMNS, RUN_COLUMNS, STEP_COLUMNS

# --- trigger ---------------------------------------------------------------------------------------

INSERT_RUN: Final = """
-- Store a new pending run.
INSERT INTO durably_runs
  (id, job_name, input, status, idempotency_key, concurrency_key, labels, created_at, updated_at)
VALUES (?, ?, ?, 'pending', ?, ?, ?, ?, ?)
"""

INSERT_LABEL: Final = """
-- Make a run findable by a label.
INSERT INTO durably_run_labels (run_id, key, value) VALUES (?, ?, ?)
"""

# --- claim -----------------------------------------------------------------------------------------

EXPIRED_RUNS: Final = """
-- Leases that ran out, those of the oldest runs first.
SELECT id, job_name, labels FROM durably_runs
WHERE status = 'leased' AND lease_expires_at <= ?
ORDER BY created_at, id
"""

RETURN_TO_PENDING: Final = """
-- Put a run back, whoever held it; within the transaction that saw the lease.
UPDATE durably_runs
SET status = 'pending', lease_owner = NULL, lease_expires_at = NULL, updated_at = ?
WHERE id = ? AND status = 'leased'
"""

FAIL_REPLACED: Final = """
-- End a run whose place in the queue is taken.
UPDATE durably_runs
SET status = 'failed', error = ?, lease_owner = NULL, lease_expires_at = NULL, completed_at = ?, updated_at = ?
WHERE id = ? AND status = 'leased'
"""

CLAIMABLE_RUNS: Final = f"""
-- The oldest waiting runs of each job whose key nobody holds. One index look-up per job, however many
-- runs are stored and however many of other jobs wait before them.
SELECT {RUN_COLUMNS} FROM durably_runs
WHERE id IN (
  SELECT run.id
  FROM json_each(?) AS job
  CROSS JOIN durably_runs AS run
  WHERE run.id IN (
    SELECT candidate.id FROM durably_runs AS candidate
    WHERE candidate.job_name = job.value AND candidate.status = 'pending'
      AND (candidate.concurrency_key IS NULL OR NOT EXISTS (
        SELECT 1 FROM durably_runs AS holder
        WHERE holder.status = 'leased' AND holder.concurrency_key = candidate.concurrency_key
      ))
    ORDER BY candidate.created_at, candidate.id
    LIMIT ?
  )
)
ORDER BY created_at, id
"""

LEASE_RUN: Final = """
-- Take a waiting run; the generation fences every later write.
UPDATE durably_runs
SET status = 'leased', lease_owner = ?, lease_expires_at = ?, lease_generation = lease_generation + 1,
    started_at = COALESCE(started_at, ?), updated_at = ?
WHERE id = ? AND status = 'pending'
"""

RENEW_LEASE: Final = """
-- Extend the lease, but only the one we still hold and in time.
UPDATE durably_runs
SET lease_expires_at = ?, updated_at = ?
WHERE id = ? AND status = 'leased' AND lease_generation = ? AND lease_expires_at > ?
"""

RELEASE_RUN: Final = """
-- Give a run back that we still hold.
UPDATE durably_runs
SET status = 'pending', lease_owner = NULL, lease_expires_at = NULL, updated_at = ?
WHERE id = ? AND status = 'leased' AND lease_generation = ?
"""

PENDING_RIVAL: Final = """
-- Whether another run of the same job and key waits.
SELECT 1 FROM durably_runs AS mine JOIN durably_runs AS waiting
  ON waiting.job_name = mine.job_name AND waiting.concurrency_key = mine.concurrency_key
WHERE mine.id = ? AND waiting.status = 'pending'
"""

# --- fenced writes ---------------------------------------------------------------------------------

ADVANCE_RUN: Final = """
-- Count a completed step, but only under our own lease.
UPDATE durably_runs
SET current_step_index = MAX(current_step_index, ?), completed_step_count = completed_step_count + 1,
    progress = COALESCE(?, progress), updated_at = ?
WHERE id = ? AND status = 'leased' AND lease_generation = ?
"""

TOUCH_RUN: Final = """
-- Note that something happened, but only under our own lease.
UPDATE durably_runs
SET progress = COALESCE(?, progress), updated_at = ?
WHERE id = ? AND status = 'leased' AND lease_generation = ?
"""

INSERT_STEP: Final = f"""
-- Store a finished step.
INSERT INTO durably_steps ({STEP_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

FINISH_RUN: Final = """
-- End a run, but only under our own lease.
UPDATE durably_runs
SET status = ?, output = ?, error = ?, progress = COALESCE(?, progress), lease_owner = NULL,
    lease_expires_at = NULL, completed_at = ?, updated_at = ?
WHERE id = ? AND status = 'leased' AND lease_generation = ?
"""

DELETE_STEPS: Final = """
-- Drop the checkpoints of a run that has ended.
DELETE FROM durably_steps WHERE run_id = ?
"""

INSERT_LOG: Final = f"""
-- Store a log line, unless its run was deleted meanwhile.
INSERT INTO durably_logs ({LOG_COLUMNS})
SELECT ?, ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM durably_runs WHERE id = ?)
"""

# --- cancel, delete, purge -------------------------------------------------------------------------

CANCEL_RUN: Final = """
-- End a run from outside.
UPDATE durably_runs
SET status = 'cancelled', lease_owner = NULL, lease_expires_at = NULL, completed_at = ?, updated_at = ?
WHERE id = ?
"""

DELETE_RUN_PARTS: Final = (
    "DELETE FROM durably_steps WHERE run_id = ?",
    "DELETE FROM durably_logs WHERE run_id = ?",
    "DELETE FROM durably_run_labels WHERE run_id = ?",
    "DELETE FROM durably_runs WHERE id = ?",
)

# --- reads -----------------------------------------------------------------------------------------

COUNT_OF_LABEL: Final = """
-- How many runs have a label, counted no further than it matters.
SELECT COUNT(*) FROM (SELECT 1 FROM durably_run_labels WHERE key = ? AND value = ? LIMIT ?)
"""

# --- events ----------------------------------------------------------------------------------------

INSERT_EVENTS: Final = """
-- Everything that one transaction has to tell, as one row.
INSERT INTO durably_events (origin, events, created_at) VALUES (?, ?, ?)
"""

TRIM_EVENTS: Final = """
-- Drop what is too old or too much. Only the oldest rows are looked at: those behind them are younger. The newest row
-- stays, so that positions never start again.
DELETE FROM durably_events WHERE position IN (
  SELECT position FROM (
    SELECT position, created_at FROM durably_events
    WHERE position < (SELECT MAX(position) FROM durably_events)
    ORDER BY position LIMIT :limit
  )
  WHERE created_at < :older_than OR position <= (SELECT MAX(position) FROM durably_events) - :keep_rows
)
"""
