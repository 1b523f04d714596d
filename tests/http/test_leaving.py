"""A client that leaves frees everything at once; one that is slow, or a thousand idle ones, cost little."""

import asyncio

import pytest

from durably import Durably, define_job
from durably.http import event_stream
from tests.conftest import OpenDurably, open_feeds
from tests.http.asgi import Client, Stream
from tests.http.conftest import echo, mounted


def stream_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("durably-stream")]


@pytest.fixture
async def durably(open_durably: OpenDurably) -> Durably:
    """An instance without a worker."""
    return await open_durably(echo)


@pytest.mark.parametrize("spec_version", ["2.0", "2.3", "2.4"])
@pytest.mark.parametrize("path", ["/runs/subscribe", "/subscribe?runId="])
async def test_an_idle_stream_ends_when_its_client_hangs_up(client: Client, spec_version: str, path: str) -> None:
    """Not with the next event or heartbeat: at once, by all versions of ASGI."""
    client.spec_version = spec_version
    run_id = await client.trigger("echo", 1)
    before = open_feeds()
    stream = client.stream(path + (run_id if path.endswith("=") else ""))
    await stream.until(lambda: stream.last_event_id)
    assert (len(stream_tasks()), open_feeds()) == (2, before + 1)

    await stream.hang_up()

    assert (stream_tasks(), open_feeds()) == ([], before)


async def test_a_client_found_gone_while_sending(client: Client) -> None:
    """ASGI 2.4: `send` raises an OSError; that is no error of ours."""
    before = open_feeds()
    stream = BreakingStream(client.application, client.request_scope("GET", "/runs/subscribe", None))
    await stream.until(lambda: stream.last_event_id)
    stream.is_broken = True

    await client.trigger("echo", 1)
    await stream.finished()

    assert (stream_tasks(), open_feeds()) == ([], before)


class BreakingStream(Stream):
    is_broken = False

    async def _send(self, message) -> None:
        if self.is_broken:
            raise ConnectionResetError("gone")
        await super()._send(message)

    async def finished(self) -> None:
        await self._serving


async def test_a_slow_client_misses_nothing(open_durably: OpenDurably) -> None:
    """What it has not taken waits in the log, not in memory, and comes when it reads on."""

    @define_job(name="chatter")
    async def chatter(step, input: int) -> None:
        for number in range(input):
            step.log.info(str(number))
            if number % 100 == 0:
                await step.run(f"step-{number}", lambda: None)

    durably = await open_durably(chatter)
    client = mounted(durably)
    run_id = await client.trigger("chatter", 3_000)
    async with client.stream(f"/subscribe?runId={run_id}") as stream:
        await stream.until(lambda: stream.last_event_id)
        stream.stop_reading()
        await durably.process_one()
        stream.read_on()
        await stream.until_end()

    messages = [event["message"] for event in stream.events if event.type == "log:write"]
    assert messages == [str(number) for number in range(3_000)]
    assert stream.types()[-1] == "run:complete"


async def test_a_thousand_streams_are_told_and_leave_nothing(client: Client) -> None:
    before = open_feeds()
    streams = [client.stream("/runs/subscribe") for _ in range(1_000)]
    for stream in streams:
        await stream.until(lambda stream=stream: stream.last_event_id)

    run_id = await client.trigger("echo", 1)
    for stream in streams:
        await stream.until_event("run:trigger", runId=run_id)
    for stream in streams:
        await stream.hang_up()

    assert (stream_tasks(), open_feeds()) == ([], before)


async def test_a_heartbeat_keeps_a_quiet_stream_open(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment, and the id of where the stream stands: a filtered stream need not re-read what it skipped."""
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.02)

    async with client.stream("/runs/subscribe?jobName=nobody") as stream:
        await stream.until(lambda: stream.last_event_id)
        first = stream.last_event_id
        await client.trigger("echo", 1)
        await stream.until(lambda: stream.last_event_id != first)

    assert "heartbeat" in stream.comments
    assert stream.events == []


async def test_closing_the_instance_ends_its_streams(open_durably: OpenDurably) -> None:
    durably = await open_durably(echo)
    client = mounted(durably)
    async with client.stream("/runs/subscribe") as stream:
        await stream.until(lambda: stream.last_event_id)
        await durably.close()
        await stream.until_end()


async def test_a_database_that_cannot_be_read_is_told_before_the_stream(open_durably: OpenDurably) -> None:
    """What goes wrong while a stream opens is still an answer, with a text that tells nothing internal."""
    durably = await open_durably(echo)
    client = mounted(durably)
    await durably.close()

    answer = await client.get("/runs/subscribe")

    assert (answer.status, answer.error) == (500, "Internal server error")
