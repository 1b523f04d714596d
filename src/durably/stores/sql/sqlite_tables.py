"""The tables in SQLite's dialect, by version.

Version 1 is shared with the TypeScript library and must stay as it is; what follows only adds.
"""

from typing import Final

_VERSION_1: Final = (
    """CREATE TABLE durably_runs (
      id text PRIMARY KEY, job_name text NOT NULL, input text NOT NULL, status text NOT NULL,
      idempotency_key text, concurrency_key text, labels text DEFAULT '{}' NOT NULL,
      current_step_index integer DEFAULT 0 NOT NULL, completed_step_count integer DEFAULT 0 NOT NULL,
      progress text, output text, error text, lease_owner text, lease_expires_at text,
      lease_generation integer DEFAULT 0 NOT NULL, started_at text, completed_at text,
      created_at text NOT NULL, updated_at text NOT NULL)""",
    "CREATE UNIQUE INDEX idx_durably_runs_job_idempotency ON durably_runs (job_name, idempotency_key)",
    """CREATE UNIQUE INDEX idx_durably_runs_pending_concurrency ON durably_runs (job_name, concurrency_key)
      WHERE status = 'pending' AND concurrency_key IS NOT NULL""",
    "CREATE INDEX idx_durably_runs_status_concurrency ON durably_runs (status, concurrency_key)",
    "CREATE INDEX idx_durably_runs_status_created ON durably_runs (status, created_at)",
    "CREATE INDEX idx_durably_runs_job_created ON durably_runs (job_name, created_at)",
    "CREATE INDEX idx_durably_runs_status_lease_expires ON durably_runs (status, lease_expires_at)",
    "CREATE INDEX idx_durably_runs_status_completed ON durably_runs (status, completed_at)",
    "CREATE TABLE durably_run_labels (run_id text NOT NULL, key text NOT NULL, value text NOT NULL)",
    "CREATE UNIQUE INDEX idx_durably_run_labels_pk ON durably_run_labels (run_id, key)",
    "CREATE INDEX idx_durably_run_labels_key_value ON durably_run_labels (key, value)",
    """CREATE TABLE durably_steps (
      id text PRIMARY KEY, run_id text NOT NULL, name text NOT NULL, "index" integer NOT NULL,
      status text NOT NULL, output text, error text, started_at text NOT NULL, completed_at text)""",
    'CREATE INDEX idx_durably_steps_run_index ON durably_steps (run_id, "index")',
    """CREATE UNIQUE INDEX idx_durably_steps_completed_unique ON durably_steps(run_id, name)
      WHERE status = 'completed'""",
    """CREATE TABLE durably_logs (
      id text PRIMARY KEY, run_id text NOT NULL, step_name text, level text NOT NULL,
      message text NOT NULL, data text, created_at text NOT NULL)""",
    "CREATE INDEX idx_durably_logs_run_created ON durably_logs (run_id, created_at)",
)

_VERSION_2: Final = (
    # Claims and lists by job and status: one range each, whatever else is stored.
    "CREATE INDEX idx_durably_runs_job_status_created ON durably_runs (job_name, status, created_at, id)",
    # Runs by label, newest first: ids sort by creation.
    "CREATE INDEX idx_durably_run_labels_newest ON durably_run_labels (key, value, run_id)",
    """CREATE TABLE durably_events (
      position integer PRIMARY KEY, origin text NOT NULL, events text NOT NULL, created_at text NOT NULL)""",
)

MIGRATIONS: Final = ((1, _VERSION_1), (2, _VERSION_2))
NEWEST: Final = MIGRATIONS[-1][0]

VERSIONS_TABLE: Final = """
CREATE TABLE IF NOT EXISTS durably_schema_versions (version integer PRIMARY KEY, applied_at text NOT NULL)
"""
