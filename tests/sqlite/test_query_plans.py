"""Every statement finds its rows by an index: its work does not grow with the runs that are stored."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from durably import BatchItem, Durably, StepContext, define_job
from durably.stores.sqlite.database import Database
from tests.conftest import Gate, OpenDurably

Verb = Callable[[Durably], Awaitable[Any]]


async def work(step: StepContext, input: Any) -> Any:
    step.progress(1)
    return await step.run("one", lambda: input)


red, green = define_job(name="red", run=work), define_job(name="green", run=work)


class Tracer:
    """Notes every statement, with its values, of every connection that is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements: set[str] = set()
        self.on_the_loop: set[str] = set()
        connect = Database.connect

        def traced(database: Database, *, writes: bool) -> sqlite3.Connection:
            connection = connect(database, writes=writes)
            connection.set_trace_callback(self._note)
            return connection

        monkeypatch.setattr(Database, "connect", traced)

    def _note(self, statement: str) -> None:
        self.statements.add(statement)
        if threading.current_thread() is threading.main_thread():
            self.on_the_loop.add(statement)

    def plans(self, connection: sqlite3.Connection) -> dict[str, list[str]]:
        """Return the plan of every statement that reads or changes rows."""
        return {
            statement: [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
            for statement in self.statements
            if any(word in statement for word in ("SELECT", "UPDATE", "DELETE")) and "durably_" in statement
        }


@pytest.fixture
def tracer(monkeypatch: pytest.MonkeyPatch) -> Tracer:
    """Note what the store asks SQLite."""
    return Tracer(monkeypatch)


async def fill(durably: Durably) -> None:
    """Store runs in every state, with labels and keys."""
    for handle in (durably.jobs.red, durably.jobs.green):
        await handle.batch_trigger(
            [BatchItem(n, labels={"org": f"{n % 5}", "env": "x"}, idempotency_key=f"{n}") for n in range(100)]
        )
    await durably.process_until_idle(max_runs=100)
    for run in await durably.get_runs(status="pending", limit=20):
        await durably.cancel(run.id)


EVENTS = """
INSERT INTO durably_events (origin, events, created_at)
SELECT 'other', '[]', '2999-01-01T00:00:00.000Z' FROM json_each(?)
"""


VERBS: dict[str, Verb] = {
    "trigger": lambda d: d.jobs.red.trigger(1, idempotency_key="new", concurrency_key="new", labels={"a": "b"}),
    "claim": lambda d: d.storage.claim("me", ["red", "green"], 5, 30),
    "execute": lambda d: d.process_until_idle(max_runs=3),
    "recover": lambda d: d.storage.recover_expired(),
    "purge": lambda d: d.purge_runs(older_than=timedelta(0), limit=10),
    "maintain": lambda d: d.storage.maintain(idle=True),
    "status": lambda d: d.get_runs(status="completed", limit=5),
    "job": lambda d: d.get_runs(job_name="red", limit=5),
    "jobs and statuses": lambda d: d.get_runs(
        job_name=["red", "green"], status=["failed", "pending"], limit=5, offset=5
    ),
    "label": lambda d: d.get_runs(labels={"org": "1"}, limit=5),
    "labels": lambda d: d.get_runs(labels={"org": "1", "env": "x"}, limit=5),
    "everything": lambda d: d.get_runs(job_name="red", status="completed", labels={"org": "1", "env": "x"}, limit=5),
    "no filter": lambda d: d.get_runs(limit=5),
}


class TestPlans:
    @pytest.mark.parametrize("verb", VERBS)
    async def test_nothing_scans_a_table(self, open_durably: OpenDurably, tracer: Tracer, verb: str) -> None:
        """D3: each verb, by the statements that it really makes."""
        durably = await open_durably(red, green)
        await fill(durably)
        tracer.statements.clear()
        await VERBS[verb](durably)

        plans = tracer.plans(durably.storage.connections.writing)  # type: ignore[attr-defined]
        assert plans
        for statement, plan in plans.items():
            for line in plan:
                assert not line.startswith("SCAN durably_"), (line, statement)
                assert "AUTOMATIC" not in line, (line, statement)

    async def test_claims_use_the_index_made_for_them(self, open_durably: OpenDurably, tracer: Tracer) -> None:
        """D3, W2: one range per job, ordered by creation."""
        durably = await open_durably(red, green)
        await fill(durably)
        tracer.statements.clear()
        await VERBS["claim"](durably)

        plans = "\n".join(
            line
            for plan in tracer.plans(durably.storage.connections.writing).values()
            for line in plan  # type: ignore[attr-defined]
        )
        assert "idx_durably_runs_job_status_created (job_name=? AND status=?)" in plans
        assert "idx_durably_runs_status_lease_expires (status=? AND lease_expires_at<?)" in plans

    async def test_an_idempotency_key_is_looked_up_by_its_index(
        self, open_durably: OpenDurably, tracer: Tracer
    ) -> None:
        """R6: unique per job."""
        durably = await open_durably(red, green)
        await fill(durably)
        tracer.statements.clear()
        await durably.jobs.red.trigger(1, idempotency_key="5")

        plans = "\n".join(
            line
            for plan in tracer.plans(durably.storage.connections.writing).values()
            for line in plan  # type: ignore[attr-defined]
        )
        assert "idx_durably_runs_job_idempotency (job_name=? AND idempotency_key=?)" in plans


class TestUpkeep:
    async def test_cleaning_the_event_log_does_not_read_all_of_it(self, open_durably: OpenDurably) -> None:
        """W3, D3: a plan does not tell a look at the oldest rows from one at all of them; the work done does."""
        durably = await open_durably(red)
        await durably.jobs.red.trigger(1)
        connection = durably.storage.connections.writing  # type: ignore[attr-defined]
        work = Counter[int]()
        for rows in (10_000, 20_000):
            connection.execute(EVENTS, (json.dumps([0] * 10_000),))
            connection.set_progress_handler(lambda rows=rows: work.update([rows]), 100)
            await durably.storage.maintain(idle=False)
            connection.set_progress_handler(None, 0)

        assert work[20_000] <= work[10_000] + 1


async def test_the_log_is_looked_through_for_progress_off_the_event_loop(
    open_durably: OpenDurably, tracer: Tracer
) -> None:
    """E3: many who subscribe at once, as after a deployment, keep nobody waiting, however much was written."""
    gate = Gate()

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        step.progress(1)
        await gate.pass_through()

    durably = await open_durably(held, start=True)
    run = await durably.jobs.held.trigger(None)
    await gate.reached()
    stream = durably.subscribe(run.id)
    assert (await anext(stream)).type == "run:leased"
    gate.open()
    assert [event.type async for event in stream][-1] == "run:complete"

    assert any("instr(events" in statement for statement in tracer.statements)
    assert not any("instr(events" in statement for statement in tracer.on_the_loop)
