"""`GET /subscribe`: the state of a run first, then what happens, to its end (wire.md "Streams", E3, E4)."""

import sqlite3
from contextlib import closing

from durably import Durably, ProgressData, RunProgressEvent, define_job
from durably.core.clock import to_text
from durably.testing import FakeClock
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably
from tests.http.asgi import Client
from tests.http.conftest import Ended, Gates, echo, greet, mounted
from tests.store_contract.foreign_writer import write


async def test_a_run_from_pending_to_its_end(open_durably: OpenDurably) -> None:
    """Every event in order, whole, with timestamp and sequence; the stream ends with the run."""
    durably = await open_durably(greet, polling_interval=0.05)
    client = mounted(durably)
    run_id = await client.trigger("greet", {"name": "Ada"}, labels={"org": "a"})

    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        assert (stream.status, stream.headers["cache-control"]) == (200, "no-cache")
        assert stream.headers["content-type"].startswith("text/event-stream")
        await durably.start()
        events = await stream.until_end()

    assert stream.types() == [
        "run:leased", "log:write", "step:start", "step:complete", "run:progress", "run:complete",
    ]  # fmt: skip
    assert all(
        (event["runId"], event["jobName"], event["labels"]) == (run_id, "greet", {"org": "a"}) for event in events
    )
    sequences = [event["sequence"] for event in events]
    assert sequences == sorted(set(sequences))
    assert sequences[0] > 0
    leased, log, started, completed, _, ended = events
    assert leased["input"] == {"name": "Ada"}
    assert leased["leaseOwner"]
    assert (log["stepName"], log["data"]) == (None, {"name": "Ada"})
    assert (started["stepName"], started["stepIndex"]) == ("compose", 0)
    assert completed["output"] == "hello Ada"
    assert ended["output"] == {"text": "hello Ada"}
    assert isinstance(ended["duration"], int)


async def test_a_pending_run_says_nothing_yet(open_durably: OpenDurably) -> None:
    client = mounted(await open_durably(echo))
    run_id = await client.trigger("echo", 1)

    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        await stream.until(lambda: stream.last_event_id)
        assert (stream.events, stream.ended) == ([], False)

        await client.post(f"/cancel?runId={run_id}")
        (cancelled,) = await stream.until_end()

    assert cancelled.type == "run:cancel"


async def test_who_comes_late_is_told_the_state(client: Client, durably: Durably) -> None:
    """Leased: `run:leased` and the latest progress, as replays with sequence 0."""
    gate = Gate()

    @define_job(name="half-way")
    async def half_way(step, input: None) -> None:
        step.progress(1, 2)
        await gate.pass_through()

    durably.register({"half_way": half_way})
    async with client.stream("/runs/subscribe") as early:
        run_id = await client.trigger("half-way", None)
        await early.until_event("run:progress")

    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        progress = await stream.until_event("run:progress")
        assert stream.types() == ["run:leased", "run:progress"]
        assert [event["sequence"] for event in stream.events] == [0, 0]
        assert progress["progress"] == {"current": 1, "total": 2}
        gate.open()
        (*_, last) = await stream.until_end()

    assert stream.types() == ["run:leased", "run:progress", "run:complete"]
    assert last["sequence"] > 0
    assert "output" not in last.data


async def test_who_asks_is_told_no_older_progress_than_who_listens(client: Client, durably: Durably) -> None:
    """S7: progress is stored a moment later; an answer from before it would make a progress bar jump back."""
    gate = Gate()

    @define_job(name="half-way")
    async def half_way(step, input: None) -> None:
        step.progress(1, 2)
        await gate.pass_through()

    durably.register({"half_way": half_way})
    run_id = await client.trigger("half-way", None)
    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        told = await stream.until_event("run:progress")
        one, listed = await client.get(f"/run?runId={run_id}"), await client.get("/runs?jobName=half-way")
        gate.open()
        await stream.until_end()

    assert one.body["progress"] == told["progress"] == {"current": 1, "total": 2}
    assert [run["progress"] for run in listed.body] == [told["progress"]]


async def test_an_ended_run_tells_its_end_and_no_more(client: Client, durably: Durably, ended: Ended) -> None:
    """Replays have sequence 0, duration 0 and no failed step's name."""
    events = Events(durably)
    good, bad = await client.trigger("echo", 7), await client.trigger("fail", 7)
    await ended(good)
    await events.until("run:fail")

    async with client.stream(f"/subscribe?runId={good}") as stream:
        (complete,) = await stream.until_end()
    async with client.stream(f"/subscribe?runId={bad}") as stream:
        (failed,) = await stream.until_end()

    assert (complete.type, complete["output"], complete["duration"]) == ("run:complete", 7, 0)
    assert (failed.type, failed["error"], failed["failedStepName"]) == ("run:fail", "it broke", "")
    assert (complete["sequence"], failed["sequence"]) == (0, 0)


async def test_a_failing_run_names_the_step(open_durably: OpenDurably) -> None:
    from tests.http.conftest import fail

    durably = await open_durably(fail)
    client = mounted(durably)
    run_id = await client.trigger("fail", None)

    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        await durably.process_one()
        await stream.until_end()

    assert stream.types() == ["run:leased", "step:start", "step:fail", "run:fail"]
    assert (stream.events[2]["error"], stream.events[3]["failedStepName"]) == ("it broke", "break")


async def test_a_cancelled_step_is_not_told_here(client: Client, gates: Gates) -> None:
    """`step:cancel` belongs to the stream of all runs; this one ends with `run:cancel`."""
    run_id = await client.trigger("gated", "a")
    await gates["a"].reached()

    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        await stream.until_event("run:leased")
        await client.post(f"/cancel?runId={run_id}")
        await stream.until_end()

    assert stream.types()[-1] == "run:cancel"
    assert "step:cancel" not in stream.types()


async def test_progress_is_throttled_and_its_last_comes_before_the_end(open_durably: OpenDurably) -> None:
    """S7: whatever the pace, the first and the last are told."""

    @define_job(name="count")
    async def count(step, input: int) -> None:
        for number in range(input):
            step.progress(number + 1)

    durably = await open_durably(count)
    throttled, open_throttle = mounted(durably, sse_throttle=3600), mounted(durably, sse_throttle=0)
    run_id = await throttled.trigger("count", 50)

    async with (
        throttled.stream(f"/subscribe?runId={run_id}") as few,
        open_throttle.stream(f"/subscribe?runId={run_id}") as all_of_them,
    ):
        await durably.process_one()
        await few.until_end()
        await all_of_them.until_end()

    assert [event["progress"]["current"] for event in few.events if event.type == "run:progress"] == [1, 50]
    assert few.types() == ["run:leased", "run:progress", "run:progress", "run:complete"]
    assert len([event for event in all_of_them.events if event.type == "run:progress"]) == 50


async def test_the_latest_progress_comes_when_its_window_closes(client: Client, durably: Durably) -> None:
    """Also when nothing else happens, so that a bar does not stand still on an old value."""
    gate = Gate()

    @define_job(name="count")
    async def count(step, input: None) -> None:
        for number in range(5):
            step.progress(number + 1)
        await gate.pass_through()

    durably.register({"count": count})
    async with client.stream("/runs/subscribe") as stream:
        await client.trigger("count", None)
        await stream.until_event("run:progress", progress={"current": 5})
        gate.open()
        await stream.until_event("run:complete")

    assert [event["progress"]["current"] for event in stream.events if event.type == "run:progress"] == [1, 5]


async def test_a_run_that_is_deleted_ends_its_stream(client: Client, durably: Durably) -> None:
    """Deleted between the look at the run and the opening of its stream: told as `run:delete`."""
    run_id = await client.trigger("echo", 1)
    run = await durably.wait_for_run(run_id, timeout=30)
    from durably.http.following import follow_one_run

    await durably.delete_run(run_id)
    stream = await follow_one_run(durably, run, None, 0.1)

    frames = [frame async for frame in stream.frames()]
    stream.close()
    assert '"type":"run:delete"' in frames[-2]
    assert frames[-1].startswith("retry: ")


async def test_a_run_that_another_program_deletes_ends_its_stream(open_durably: OpenDurably, database: str) -> None:
    """E1: it wrote no event, and a client that came again would be told nothing but that there is no such run."""
    durably = await open_durably(echo)
    client = mounted(durably)
    run_id = await client.trigger("echo", 1)

    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        with closing(sqlite3.connect(database.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("DELETE FROM durably_runs WHERE id = ?", (run_id,))
        await stream.until_end()

    assert stream.types() == ["run:delete"]


async def test_the_state_is_told_by_the_clock_of_the_instance(open_durably: OpenDurably) -> None:
    """E1: as every other event is."""
    clock = FakeClock()
    durably = await open_durably(echo, clock=clock)
    run = await durably.jobs.echo.trigger(None)
    await durably.storage.claim("worker", ["echo"], 1, 30)
    clock.advance(seconds=5)

    async with mounted(durably).stream(f"/subscribe?runId={run.id}") as stream:
        leased = await stream.until_event("run:leased")

    assert leased["timestamp"] == to_text(clock.now())


async def test_a_run_that_executes_in_another_instance(open_durably: OpenDurably, gates: Gates) -> None:
    """E4: events of another worker on the database arrive here, in order."""
    watching = await open_durably(gates.job())
    working = await open_durably(gates.job(), start=True, polling_interval=0.05)
    client = mounted(watching)
    run_id = await client.trigger("gated", "a")
    await gates["a"].reached()

    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        await stream.until_event("run:leased")
        gates["a"].open()
        await stream.until_end()

    assert stream.types()[-2:] == ["step:complete", "run:complete"]
    await working.stop()


async def test_expiry_and_purge_end_streams_too(open_durably: OpenDurably) -> None:
    """E1: every way a run can end is told to who follows it."""
    durably = await open_durably(echo)
    client = mounted(durably)
    run_id = await client.trigger("echo", 1)
    await durably.process_one()

    async with client.stream("/runs/subscribe") as stream:
        assert await durably.purge_runs(older_than="0s") == 1
        deleted = await stream.until_event("run:delete")

    assert deleted.data == {"type": "run:delete", "runId": run_id, "jobName": "echo", "labels": {}}


async def test_an_event_that_user_code_emits_stays_in_the_process(client: Client, durably: Durably) -> None:
    """`emit` tells listeners; the stream carries the log of the database."""
    from datetime import UTC, datetime

    async with client.stream("/runs/subscribe") as stream:
        durably.emit(
            RunProgressEvent(
                timestamp=datetime.now(UTC), run_id="x", job_name="echo", labels={}, progress=ProgressData(1)
            )
        )
        run_id = await client.trigger("echo", 1)
        await stream.until_event("run:complete")

    assert {event["runId"] for event in stream.events} == {run_id}


async def test_json_that_another_program_stored_over_several_lines_is_one_frame(
    open_durably: OpenDurably, database: str
) -> None:
    """D1: a line break would end the field of the stream."""
    durably = await open_durably(echo)
    client = mounted(durably)
    run_id = await client.trigger("echo", 1)
    await write(database, f"UPDATE durably_runs SET input = '{{\n  \"n\":\r\n 1}}' WHERE id = '{run_id}'")
    await durably.storage.claim("elsewhere", ["echo"], 1, PATIENCE_SECONDS)

    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        leased = await stream.until_event("run:leased")

    assert leased["input"] == {"n": 1}
