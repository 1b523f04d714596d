"""What is read does not grow with what is stored."""

from __future__ import annotations

from typing import Any

import asyncpg

from tests.conftest import OpenDurably, until

FILL = """
INSERT INTO durably_runs (id, job_name, input, status, created_at, updated_at, completed_at)
SELECT 'run-' || to_char(n, 'FM000000'), 'old', '1', 'completed', at, at, at
FROM generate_series(1, 20000) AS n,
  LATERAL (SELECT to_char(timestamp '2026-01-01' + n * interval '1 second', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')) AS t(at);
INSERT INTO durably_run_labels (run_id, key, value)
SELECT id, 'tenant', CASE WHEN id = 'run-000007' THEN 'rare' ELSE 't' || hashtext(id) % 500 END FROM durably_runs;
INSERT INTO durably_run_labels (run_id, key, value) SELECT id, 'region', 'eu' FROM durably_runs;
ANALYZE;
"""
FILL_LOG = """
INSERT INTO durably_events (origin, number, events, created_at)
SELECT 'other', n, '[]', '2999-01-01T00:00:00.000Z' FROM generate_series(1, 20000) AS n;
ANALYZE;
"""
ADD_LINES = """
INSERT INTO durably_logs (id, run_id, level, message, created_at)
SELECT id || '-' || n, id, 'info', 'done', created_at FROM durably_runs,
  LATERAL generate_series(1, CASE WHEN id = 'run-000002' THEN 30000 WHEN id <= 'run-000020' THEN 4000 END) AS n
"""
ANNOUNCED_TOGETHER = """
SELECT json_array_length(events::json) FROM durably_events WHERE events LIKE '%run:delete%' ORDER BY position
"""
ROWS_READ = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables WHERE relname = $1"
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counted'"


async def until_counted(connection: Any) -> None:
    """Return when the sessions of a store are gone: each says what it has read when it ends, at the latest."""

    async def are_gone() -> bool:
        return await connection.fetchval(SESSIONS) == 0

    await until(are_gone)


async def test_a_rare_label_is_found_without_walking_through_the_others(
    database: str, open_durably: OpenDurably
) -> None:
    """R5: the planner takes labels to be spread evenly, and would look at every run for one that is not."""
    durably = await open_durably(database=f"{database}?application_name=counted")
    connection = await asyncpg.connect(database)
    await connection.execute(FILL)
    await connection.execute("SELECT pg_stat_force_next_flush()")
    before = await connection.fetchval(ROWS_READ, "durably_runs")

    rare = await durably.get_runs(labels={"tenant": "rare"}, limit=20)
    common = await durably.get_runs(labels={"region": "eu"}, limit=20)
    await durably.close()

    await until_counted(connection)
    assert [run.id for run in rare] == ["run-000007"]
    assert [run.id for run in common][:2] == ["run-020000", "run-019999"]
    assert await connection.fetchval(ROWS_READ, "durably_runs") - before < 1_000
    await connection.close()


async def test_cleaning_the_event_log_does_not_read_all_of_it(database: str, open_durably: OpenDurably) -> None:
    """W3: what is to go are the oldest rows, and no others are looked at."""
    durably = await open_durably(database=f"{database}?application_name=counted")
    connection = await asyncpg.connect(database)
    await connection.execute(FILL_LOG)
    await connection.execute("SELECT pg_stat_force_next_flush()")
    before = await connection.fetchval(ROWS_READ, "durably_events")

    await durably.storage.maintain(idle=False)
    await durably.close()

    await until_counted(connection)
    assert await connection.fetchval(ROWS_READ, "durably_events") - before < 5_000
    await connection.close()


async def test_events_do_not_wait_for_a_purge_of_very_many_log_lines(database: str, open_durably: OpenDurably) -> None:
    """R10: it is done in portions; a run and its lines are one."""
    durably = await open_durably()
    connection = await asyncpg.connect(database)
    await connection.execute(FILL)
    await connection.execute(ADD_LINES)

    assert await durably.purge_runs(older_than="1d", limit=21) == 21

    portions = [count for (count,) in await connection.fetch(ANNOUNCED_TOGETHER)]
    assert (portions[:2], max(portions), sum(portions)) == ([1, 1], 5, 21)
    assert await connection.fetchval("SELECT count(*) FROM durably_logs") == 0
    assert (await durably.get_runs(limit=1, offset=19_978))[0].id == "run-000022"
    await connection.close()
