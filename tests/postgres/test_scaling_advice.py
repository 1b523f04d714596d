"""The SQL of docs/scaling.md does what the page says."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import asyncpg

from durably import define_job
from tests.conftest import OpenDurably

PAGE = Path(__file__).parent.parent.parent / "docs" / "scaling.md"


@define_job(name="echo")
def echo(step: object, input: int) -> int:
    return input


async def test_ended_runs_are_kept_in_a_partitioned_table(database: str, open_durably: OpenDurably) -> None:
    """They are copied once each, are found by month, and stay when the queue forgets them."""
    vacuum, history, copy = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    # A run that ended just now may not be the last to be committed with that time.
    # Here all have been, and the clock may still show the millisecond in which the last of them ended.
    copy_at_once = copy.replace("interval '1 minute'", "interval '-1 minute'")
    assert copy_at_once != copy
    durably = await open_durably(echo)
    runs = await durably.jobs.echo.batch_trigger([1, 2, 3])
    await durably.process_until_idle()
    connection = await asyncpg.connect(database)
    await connection.execute(vacuum)
    await connection.execute(history)

    for _ in range(2):
        await connection.execute(copy_at_once)
        await durably.jobs.echo.trigger(4)
    assert await durably.process_until_idle() == 2
    await connection.execute(copy_at_once)
    assert await durably.purge_runs(older_than=timedelta(0)) == 5

    rows = await connection.fetch(
        "SELECT id, output FROM ended_runs WHERE completed_at >= to_char(now() - interval '1 day', 'YYYY-MM-DD')"
        " ORDER BY created_at, id"
    )
    await connection.close()
    assert [row["output"] for row in rows] == ["1", "2", "3", "4", "4"]
    assert [row["id"] for row in rows[:3]] == [run.id for run in runs]
