"""E4: every event of the database once, in one order, though transactions commit out of order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest
from asyncpg.transaction import Transaction

from durably import Durably, StepContext, StoreUnavailableError, define_job, with_log_persistence
from durably.core.event_codec import encode_events
from durably.core.events import RunCancelEvent
from durably.core.store import Position
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably, until

INSERT = "INSERT INTO durably_events (origin, number, events, created_at) VALUES ('other', $1, $2, $3)"


@define_job(name="idle")
def idle(step: object, input: int) -> int:
    return input


@define_job(name="steps")
async def steps(step: StepContext, input: int) -> int:
    step.log.info("begun")
    return await step.run("double", lambda: 2 * input)


@pytest.fixture
async def slow_writer(database: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield the connection of another process, which takes its time between write and commit."""
    connection = await asyncpg.connect(database)
    yield connection
    connection.terminate()


async def write(connection: asyncpg.Connection, number: int) -> None:
    event = RunCancelEvent(timestamp=datetime.now(UTC), run_id=f"foreign-{number}", job_name="other", labels={})
    await connection.execute(INSERT, number, encode_events([event]), "2026-01-01T00:00:00.000Z")


async def begin_to_write(connection: asyncpg.Connection, number: int) -> Transaction:
    """Take a position of the log in a transaction that is not committed yet."""
    transaction = connection.transaction()
    await transaction.start()
    await write(connection, number)
    return transaction


async def test_an_event_waits_for_those_before_it(open_durably: OpenDurably, slow_writer: asyncpg.Connection) -> None:
    """A row that is committed is not delivered while one before it may still appear."""
    durably = await open_durably(idle)
    events = Events(durably)
    transaction = await begin_to_write(slow_writer, 1)

    run = await durably.jobs.idle.trigger(1)
    looks_at_the_table = asyncio.create_task(durably.get_runs())
    await looks_at_the_table
    assert events.types() == []

    await transaction.commit()
    await events.until("run:trigger")
    assert [event.run_id for event in events.seen] == ["foreign-1", run.id]


async def test_what_is_wrong_is_told_though_others_wait(
    open_durably: OpenDurably, slow_writer: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L3, E1: a worker that is cut off in that moment says what it lost, and not when it is back."""
    durably = await open_durably(idle)
    events = Events(durably)
    transaction = await begin_to_write(slow_writer, 1)
    await durably.jobs.idle.trigger(1)

    async def refuse(*args: object) -> list[object]:
        raise StoreUnavailableError("cut off")

    monkeypatch.setattr(durably.storage, "claim", refuse)
    await durably.start()
    await events.until("worker:error")
    assert set(events.types()) == {"worker:error"}

    await transaction.commit()
    await events.until("run:trigger")


async def test_an_event_does_not_wait_for_one_that_never_comes(
    open_durably: OpenDurably, slow_writer: asyncpg.Connection
) -> None:
    """A position whose transaction was rolled back stays empty and is passed over."""
    durably = await open_durably(idle)
    events = Events(durably)
    transaction = await begin_to_write(slow_writer, 1)
    run = await durably.jobs.idle.trigger(1)

    await transaction.rollback()

    await events.until("run:trigger")
    await write(slow_writer, 2)
    await events.until("run:cancel")
    assert [event.run_id for event in events.seen] == [run.id, "foreign-2"]


@pytest.mark.parametrize("is_committed", [True, False])
async def test_what_a_run_tells_at_once_waits_for_what_it_told_before(
    open_durably: OpenDurably, slow_writer: asyncpg.Connection, is_committed: bool
) -> None:
    """The start of a step is told without a commit, but not before the lease of which nobody has heard yet."""
    durably = await open_durably(steps)
    events = Events(durably)
    await durably.jobs.steps.trigger(1)
    await events.until("run:trigger")
    transaction = await begin_to_write(slow_writer, 1)

    assert await durably.process_one()
    assert events.types() == ["run:trigger"]

    await (transaction.commit() if is_committed else transaction.rollback())
    await events.until("run:complete")
    expected = ["run:trigger", "run:cancel", "run:leased", "log:write", "step:start", "step:complete", "run:complete"]
    assert events.types() == [each for each in expected if is_committed or each != "run:cancel"]
    sequences = [event.sequence for event in events.seen]
    assert sequences == sorted(set(sequences))


async def test_who_leaves_is_told_what_it_has_committed(
    open_durably: OpenDurably, slow_writer: asyncpg.Connection
) -> None:
    """E1: also what waits for another process, whose row may come when nobody is here any more."""
    durably = await open_durably(steps)
    events = Events(durably)
    await durably.jobs.steps.trigger(1)
    await events.until("run:trigger")
    await slow_writer.transaction().start()
    await write(slow_writer, 1)
    assert await durably.process_one()
    assert events.types() == ["run:trigger"]

    await durably.close()

    expected = ["run:trigger", "run:leased", "log:write", "step:start", "step:complete", "run:complete"]
    assert events.types() == expected


async def test_two_processes_deliver_the_same_events_in_the_same_order(open_durably: OpenDurably) -> None:
    """Each hears of what it does itself and of what the other does, once, in the order of the log."""
    here, there = await open_durably(idle), await open_durably(idle)
    heard_here, heard_there = Events(here), Events(there)

    runs = await asyncio.gather(*(each.jobs.idle.trigger(n) for n in range(100) for each in (here, there)))

    await asyncio.gather(heard_here.until("run:trigger", 200), heard_there.until("run:trigger", 200))
    order_here = [event.run_id for event in heard_here.seen]
    assert order_here == [event.run_id for event in heard_there.seen]
    assert sorted(order_here) == sorted(run.id for run in runs)


async def test_a_stream_begun_amid_commits_has_no_gap_and_no_duplicate(
    open_durably: OpenDurably, slow_writer: asyncpg.Connection
) -> None:
    """E3: the state first, then what happens; what the state already shows is not told again."""
    durably = await open_durably(idle)
    run = await durably.jobs.idle.trigger(1)
    transaction = await begin_to_write(slow_writer, 1)
    other = await durably.jobs.idle.trigger(2)

    position_of_run = await durably.storage.snapshot(run.id)
    await transaction.commit()
    position_of_other = await durably.storage.snapshot(other.id)

    assert position_of_run[0] is not None
    assert position_of_other[1] > position_of_run[1]


async def test_a_stream_begins_though_there_is_always_a_commit_under_way(
    open_durably: OpenDurably, slow_writer: asyncpg.Connection, database: str
) -> None:
    """E3: it tells the state that it saw, as soon as nothing can appear before that, whatever happens behind it."""
    durably = await open_durably(idle)
    run = await durably.jobs.idle.trigger(1)
    earlier = await begin_to_write(slow_writer, 1)
    await durably.storage.claim("somebody", ["idle"], 1, 30)
    looking = asyncio.create_task(durably.storage.snapshot(run.id))
    looking_at_all = asyncio.create_task(durably.storage.snapshot(""))
    await asyncio.sleep(0.1)
    later_writer = await asyncpg.connect(database)
    await begin_to_write(later_writer, 2)
    await durably.cancel(run.id)
    assert not looking.done()
    await earlier.commit()

    async with asyncio.timeout(PATIENCE_SECONDS):
        found, position = await looking
        _, position_of_all = await looking_at_all
    assert found is not None
    assert found.status == "leased"
    assert position == position_of_all
    later_writer.terminate()


async def test_a_reader_goes_on_from_where_it_was_in_another_process(
    open_durably: OpenDurably, slow_writer: asyncpg.Connection, database: str
) -> None:
    """E3: it has all before that, though this process has not come as far, as when it lost its connection."""
    durably = await open_durably(idle)
    await durably.jobs.idle.trigger(1)
    await begin_to_write(slow_writer, 1)
    writer = await asyncpg.connect(database)
    for number in (2, 3):
        await write(writer, number)
    last = await writer.fetchval("SELECT max(position) FROM durably_events")

    page = await durably.storage.events_after(Position.behind(last - 1), 10)

    assert [each.event.run_id for each in page.events] == ["foreign-3"]  # type: ignore[union-attr] # it is about a run
    writer.terminate()


async def test_what_ends_a_run_behind_a_long_gap_is_told_after_all_else(
    open_durably: OpenDurably, slow_writer: asyncpg.Connection
) -> None:
    """E3, R11: the end can be seen in the run long before its event may be told."""
    gate = Gate()

    @define_job(name="gated")
    async def gated(step: StepContext, input: int) -> None:
        step.progress(1)
        await gate.pass_through()
        await step.run("one", lambda: 1)
        step.log.info("nearly done")

    watcher = await open_durably(gated)
    await open_durably(gated, start=True)
    run = await watcher.jobs.gated.trigger(1)
    begun = [asyncio.Event(), asyncio.Event()]
    told: list[str] = []
    lines: list[str] = []

    async def follow() -> None:
        async for event in watcher.subscribe(run.id):
            told.append(event.type)
            begun[0].set()

    following = asyncio.create_task(follow())
    waiting = asyncio.create_task(
        watcher.wait_for_run(
            run.id, on_progress=lambda _: begun[1].set(), on_log=lambda line: lines.append(line.message)
        )
    )
    await gate.reached()
    await asyncio.gather(*[each.wait() for each in begun])
    transaction = await begin_to_write(slow_writer, 1)
    gate.open()
    await until(lambda: has_ended(watcher, run.id))
    # What is told of work makes everybody look whether a run has ended that they wait for.
    await watcher.jobs.gated.trigger(2)
    await asyncio.sleep(2.5)
    await transaction.commit()
    await asyncio.gather(following, waiting)

    assert told[-4:] == ["step:start", "step:complete", "log:write", "run:complete"]
    assert lines == ["nearly done"]


async def test_lines_behind_a_gap_are_stored_all_the_same(
    open_durably: OpenDurably, slow_writer: asyncpg.Connection
) -> None:
    """P1: listeners are told in the order of the log; what is stored waits for nobody, least of all at the end."""
    durably = await open_durably(steps)
    durably.use(with_log_persistence())
    await durably.start()
    transaction = await begin_to_write(slow_writer, 1)
    run = await durably.jobs.steps.trigger(1)
    await until(lambda: has_ended(durably, run.id))

    assert [line.message for line in await durably.get_logs(run.id)] == ["begun"]

    other = await durably.jobs.steps.trigger(2)
    await until(lambda: has_ended(durably, other.id))
    await durably.stop()
    assert [line.message for line in await durably.storage.get_logs(other.id)] == ["begun"]
    await transaction.rollback()


async def test_a_cancel_behind_a_long_gap_is_told_once(
    open_durably: OpenDurably, slow_writer: asyncpg.Connection
) -> None:
    """E4: who executes the run sees that it was cancelled before it hears of it."""
    gate = Gate()

    @define_job(name="gated")
    async def gated(step: StepContext, input: int) -> None:
        await gate.pass_through()

    canceller, worker = await open_durably(gated), await open_durably(gated, start=True)
    heard_here, heard_there = Events(canceller), Events(worker)
    run = await canceller.jobs.gated.trigger(1)
    await gate.reached()
    transaction = await begin_to_write(slow_writer, 1)
    await canceller.cancel(run.id)
    await canceller.jobs.gated.trigger(2)
    await asyncio.sleep(2.5)
    await transaction.commit()
    last = await canceller.jobs.gated.trigger(3)

    for events in (heard_here, heard_there):
        await until(lambda events=events: is_heard(events, last.id))  # type: ignore[misc] # mypy: cannot infer
        assert len([event for event in events.of("run:cancel") if event.run_id == run.id]) == 1


async def has_ended(durably: Durably, run_id: str) -> bool:
    run = await durably.get_run(run_id)
    return run is not None and run.is_terminal


async def is_heard(events: Events, run_id: str) -> bool:
    return any(event.run_id == run_id for event in events.of("run:trigger"))


async def test_a_lost_listening_connection_is_made_up_for(
    open_durably: OpenDurably, slow_writer: asyncpg.Connection
) -> None:
    """What happened while nobody listened is read from the table, from the last position on."""
    durably = await open_durably(idle)
    events = Events(durably)
    await write(slow_writer, 1)
    await slow_writer.execute("NOTIFY durably, 'other'")
    await events.until("run:cancel")

    await slow_writer.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    await slow_writer.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'durably' AND datname = current_database()"
    )
    for number in (2, 3):
        await write(slow_writer, number)

    await events.until("run:cancel", 3)
    assert [event.run_id for event in events.seen] == ["foreign-1", "foreign-2", "foreign-3"]


async def test_what_is_cleaned_away_while_a_page_is_read_is_no_silent_gap(
    open_durably: OpenDurably, slow_writer: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E4: a page either has every row or says that some are missing."""
    durably = await open_durably(idle)
    for number in range(1, 6):
        await write(slow_writer, number)
    pool = durably.storage._bound.pool  # type: ignore[attr-defined]
    fetch = pool.fetch
    cleaned: list[str] = []

    async def fetch_and_clean(statement: str, *values: object) -> object:
        rows = await fetch(statement, *values)
        if "FROM durably_events" in statement:
            cleaned.append(await slow_writer.execute("DELETE FROM durably_events WHERE position <= 3"))
        return rows

    monkeypatch.setattr(pool, "fetch", fetch_and_clean)
    page = await durably.storage.events_after(Position.behind(0), 10)

    assert cleaned[0] == "DELETE 3"
    assert len(page.events) == 5 or not page.is_gapless
