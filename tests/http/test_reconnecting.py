"""`id:` on every event and `Last-Event-ID`: a client that comes back goes on where it broke off."""

import pytest

from durably import define_job
from durably.http import event_stream
from durably.testing import FakeClock
from tests.conftest import PATIENCE_SECONDS, Gate, MeanwhileElsewhere, OpenDurably
from tests.http.asgi import Client, SentEvent
from tests.http.conftest import Ended, echo, greet, mounted


@define_job(name="count")
async def count(step, input: int) -> int:
    for number in range(input):
        step.progress(number + 1)
        await step.run(f"count-{number}", lambda: None)
    return input


def without_ids(events: list[SentEvent]) -> list[dict[str, object]]:
    return [event.data for event in events]


async def test_every_id_of_a_run_leads_to_exactly_what_follows(open_durably: OpenDurably) -> None:
    """E3: wherever the connection broke, the rest comes once, and sequences go on."""
    durably = await open_durably(count)
    client = mounted(durably, sse_throttle=0)
    run_id = await client.trigger("count", 3)
    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        await durably.process_one()
        events = await stream.until_end()

    for number, event in enumerate(events[:-1], start=1):
        async with client.resume(f"/subscribe?runId={run_id}", event.last_event_id) as resumed:
            assert without_ids(await resumed.until_end()) == without_ids(events[number:])


@pytest.mark.parametrize("path", ["/subscribe?runId=", "/runs/subscribe?runId="])
async def test_a_stream_says_how_soon_to_come_back(client: Client, path: str) -> None:
    """Browsers wait for three seconds of their own accord."""
    run_id = await client.trigger("gated", "held")

    async with client.stream(path + run_id) as stream:
        await stream.until(lambda: stream.retry_milliseconds)

    assert 500 <= stream.retry_milliseconds <= 1_500


async def test_a_stream_that_ended_need_not_be_asked_again_soon(client: Client, ended: Ended) -> None:
    """The TypeScript library's hooks leave their EventSource open after the end, and it comes back for ever."""
    run_id = await client.trigger("echo", 1)

    for has_ended in (False, True):
        if has_ended:
            await ended(run_id)
        async with client.stream(f"/subscribe?runId={run_id}") as stream:
            await stream.until_end()
        assert stream.retry_milliseconds == 60_000


async def test_a_client_that_knows_the_end_is_told_it_again(client: Client, ended: Ended) -> None:
    """An EventSource comes back after every end; a stream that waited for more would stay open for ever."""
    run_id = await client.trigger("echo", 1)
    await ended(run_id)
    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        (end,) = await stream.until_end()

    async with client.resume(f"/subscribe?runId={run_id}", end.last_event_id) as resumed:
        (again,) = await resumed.until_end()

    assert again == end


async def test_the_stream_of_all_runs_goes_on_too(open_durably: OpenDurably) -> None:
    """What happened meanwhile comes first, filtered as before, then what happens now."""
    durably = await open_durably(echo, greet)
    client = mounted(durably)
    async with client.stream("/runs/subscribe?jobName=echo") as stream:
        await client.trigger("echo", "before")
        before = await stream.until_event("run:trigger")

    missed = await client.trigger("echo", "missed")
    await client.trigger("greet", {"name": "Ada"})
    async with client.resume("/runs/subscribe?jobName=echo", before.last_event_id) as resumed:
        now = await client.trigger("echo", "now")
        await resumed.until_event("run:trigger", runId=now)

    assert [event["runId"] for event in resumed.events] == [missed, now]


async def test_a_client_that_heard_of_nothing_yet_can_go_on_as_well(open_durably: OpenDurably) -> None:
    """A stream begins with an id, before its first event."""
    durably = await open_durably(echo)
    client = mounted(durably)
    async with client.stream("/runs/subscribe") as stream:
        await stream.until(lambda: stream.last_event_id)

    missed = await client.trigger("echo", 1)
    async with client.resume("/runs/subscribe", stream.last_event_id) as resumed:
        await resumed.until_event("run:trigger", runId=missed)


async def test_the_query_can_say_it_in_place_of_the_header(open_durably: OpenDurably) -> None:
    """A new EventSource cannot set headers."""
    durably = await open_durably(echo)
    client = mounted(durably)
    async with client.stream("/runs/subscribe") as stream:
        await stream.until(lambda: stream.last_event_id)

    missed = await client.trigger("echo", 1)
    async with client.stream(f"/runs/subscribe?lastEventId={stream.last_event_id}") as resumed:
        await resumed.until_event("run:trigger", runId=missed)


async def test_progress_that_was_held_back_is_not_lost(open_durably: OpenDurably) -> None:
    """An event that overtook held progress has an id that remembers it."""
    gate = Gate()

    @define_job(name="overtaken")
    async def overtaken(step, input: None) -> None:
        for number in range(5):
            step.progress(number + 1)
        step.log.info("overtakes")
        await gate.pass_through()

    durably = await open_durably(overtaken, start=True, polling_interval=0.05)
    client = mounted(durably, sse_throttle=3600)
    async with client.stream("/runs/subscribe") as stream:
        run_id = await client.trigger("overtaken", None)
        log = await stream.until_event("log:write")
        assert [event["progress"] for event in stream.events if event.type == "run:progress"] == [{"current": 1}]

    for path in (f"/subscribe?runId={run_id}", "/runs/subscribe"):
        async with client.resume(path, log.last_event_id) as resumed:
            progress = await resumed.until_event("run:progress")
            assert progress["progress"] == {"current": 5}
            assert resumed.types() == ["run:progress"]
    gate.open()


async def test_held_progress_of_many_runs_is_owed_until_all_of_it_was_sent(open_durably: OpenDurably) -> None:
    """Who is cut off a second time, between two of them, is still told the others."""
    gate = Gate()

    @define_job(name="reporting")
    async def reporting(step, input: None) -> None:
        step.progress(1)
        step.progress(2)
        step.log.info("overtakes")
        await gate.pass_through()

    durably = await open_durably(reporting, start=True, polling_interval=0.05)
    client = mounted(durably, sse_throttle=3600)
    async with client.stream("/runs/subscribe") as stream:
        run_ids = {await client.trigger("reporting", None) for _ in range(3)}
        for run_id in run_ids:
            await stream.until_event("log:write", runId=run_id)

    last, told = stream.last_event_id, set()
    for _ in run_ids:
        async with client.resume("/runs/subscribe", last) as resumed:
            await resumed.until(lambda told=told, resumed=resumed: {e["runId"] for e in resumed.events} - told)
        fresh = next(event for event in resumed.events if event["runId"] not in told)
        assert fresh["progress"] == {"current": 2}
        told.add(fresh["runId"])
        last = fresh.last_event_id
    assert told == run_ids
    gate.open()


async def test_half_of_a_state_is_nothing_to_go_on_from(open_durably: OpenDurably) -> None:
    """Who got `run:leased` but not the progress behind it begins again with the state."""
    gate = Gate()

    @define_job(name="half-way")
    async def half_way(step, input: None) -> None:
        step.progress(1, 2)
        await gate.pass_through()

    durably = await open_durably(half_way, start=True, polling_interval=0.05)
    client = mounted(durably)
    async with client.stream("/runs/subscribe") as early:
        run_id = await client.trigger("half-way", None)
        await early.until_event("run:progress")
    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        await stream.until_event("run:progress")

    leased, progress = stream.events
    assert leased.last_event_id == ""
    async with client.resume(f"/subscribe?runId={run_id}", progress.last_event_id) as resumed:
        gate.open()
        await resumed.until_end()
    assert "run:leased" not in resumed.types()


async def test_after_a_gap_in_the_log_the_state_is_told(open_durably: OpenDurably) -> None:
    """The log keeps events for minutes: who was away for longer is told where the run stands now."""
    clock = FakeClock()
    durably = await open_durably(count, clock=clock)
    client = mounted(durably)
    run_id = await client.trigger("count", 3)
    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        await stream.until(lambda: stream.last_event_id)
    await durably.process_one()

    await forget_events(durably, clock)

    async with client.resume(f"/subscribe?runId={run_id}", stream.last_event_id) as resumed:
        (end,) = await resumed.until_end()
    assert (end.type, end["output"], end["sequence"]) == ("run:complete", 3, 0)


async def test_an_id_that_leads_back_to_what_lies_ahead_is_none(open_durably: OpenDurably) -> None:
    """A typed one: where the log no longer has its position, the state is told as after any other gap."""
    clock = FakeClock()
    durably = await open_durably(count, clock=clock)
    client = mounted(durably)
    run_id = await client.trigger("count", 3)
    await durably.process_one()
    await forget_events(durably, clock)

    async with client.resume(f"/subscribe?runId={run_id}", "1.0~99999.0") as resumed:
        (end,) = await resumed.until_end()
    assert (end.type, end["output"]) == ("run:complete", 3)


async def test_a_client_that_waits_beside_others_can_go_on_where_it_waited(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E4: a heartbeat's id is past what other runs told, so that cleaning that away leaves no gap."""
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.02)
    clock = FakeClock()
    durably = await open_durably(count, greet, clock=clock)
    client = mounted(durably, sse_throttle=0)
    run_id = await client.trigger("count", 1)
    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        for number in range(3):
            await client.trigger("greet", {"name": str(number)})
        heard = len(stream.comments)
        await stream.until(lambda: len(stream.comments) > heard + 1)

    await forget_events(durably, clock)
    await durably.process_one()

    async with client.resume(f"/subscribe?runId={run_id}", stream.last_event_id) as resumed:
        events = await resumed.until_end()
    assert [event.type for event in events][:2] == ["run:leased", "run:progress"]
    assert events[-1].type == "run:complete"


async def test_after_a_gap_the_stream_of_all_runs_begins_now(open_durably: OpenDurably) -> None:
    clock = FakeClock()
    durably = await open_durably(echo, clock=clock)
    client = mounted(durably)
    async with client.stream("/runs/subscribe") as stream:
        await stream.until(lambda: stream.last_event_id)
    for number in range(3):
        await client.trigger("echo", number)

    await forget_events(durably, clock)

    async with client.resume("/runs/subscribe", stream.last_event_id) as resumed:
        now = await client.trigger("echo", "now")
        await resumed.until_event("run:trigger", runId=now)
    assert len(resumed.events) == 1


async def test_a_client_too_slow_for_the_log_is_sent_away_to_come_again(open_durably: OpenDurably) -> None:
    """It would miss events silently; its next stream tells it the state instead."""

    @define_job(name="chatter")
    async def chatter(step, input: int) -> None:
        for number in range(input):
            step.log.info(str(number))
        await step.run("rest", lambda: None)

    clock = FakeClock()
    durably = await open_durably(chatter, clock=clock)
    client = mounted(durably)
    run_id = await client.trigger("chatter", 2_000)
    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        await stream.until(lambda: stream.last_event_id)
        stream.stop_reading()
        await durably.process_one()
        await forget_events(durably, clock)
        stream.read_on()
        await stream.until_end()
        assert "run:complete" not in stream.types()

    async with client.resume(f"/subscribe?runId={run_id}", stream.last_event_id) as resumed:
        (end,) = await resumed.until_end()
    assert end.type == "run:complete"


@pytest.mark.parametrize(
    "last_event_id",
    ["garbage", "-1.0", "99999999.0", "1.0~x", "9" * 40 + ".1", "\u0661.\u0662", "1.2\n", "0.0"],
)
async def test_an_id_that_no_stream_gave_is_none(client: Client, ended: Ended, last_event_id: str) -> None:
    """Another database's id, or a typed one: the stream begins with the state, or with all that there is."""
    run_id = await client.trigger("echo", 1)
    await ended(run_id)

    async with client.stream(
        f"/subscribe?runId={run_id}", headers={"last-event-id": last_event_id.encode().decode("latin-1")}
    ) as stream:
        events = await stream.until_end()

    assert events[-1].type == "run:complete"


async def forget_events(durably, clock: FakeClock) -> None:
    """Let the log grow old and be cleaned up; its newest row always stays."""
    clock.advance(hours=1)
    await durably.storage.maintain(idle=False)


async def test_a_stream_ends_when_it_missed_what_was_cleaned_away(
    open_durably: OpenDurably, meanwhile_elsewhere: MeanwhileElsewhere
) -> None:
    """E4: as in a process that was suspended: whoever comes back is told the state."""
    durably = await open_durably(echo)
    client = mounted(durably)
    run_id = await client.trigger("echo", 1)
    await durably.storage.claim("elsewhere", ["echo"], 1, PATIENCE_SECONDS)

    async with client.stream(f"/subscribe?runId={run_id}") as one, client.stream("/runs/subscribe") as all_runs:
        await one.until_event("run:leased")
        await all_runs.until(lambda: all_runs.retry_milliseconds)
        meanwhile_elsewhere(lambda there: there.cancel(run_id))
        await one.until_end()
        await all_runs.until_end()

    assert (one.types(), all_runs.types()) == (["run:leased"], [])
