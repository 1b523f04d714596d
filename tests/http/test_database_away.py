"""A database that goes away for a while: an answer that says so, streams that end cleanly and can be taken up again."""

from typing import Any

import pytest

from durably import Durably, StoreUnavailableError
from tests.conftest import OpenDurably, kept_events
from tests.http.asgi import Client
from tests.http.conftest import echo
from tests.http.test_leaving import stream_tasks


@pytest.fixture
async def durably(open_durably: OpenDurably) -> Durably:
    """An instance without a worker."""
    return await open_durably(echo)


@pytest.fixture
def take_away(durably: Durably, monkeypatch: pytest.MonkeyPatch):
    """Let a method of the store fail as it does while the database cannot be reached."""

    async def fails(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("database /secret/place/jobs.db is locked")

    return lambda method: monkeypatch.setattr(durably.storage, method, fails)


async def test_a_request_is_answered_with_503(client: Client, take_away) -> None:
    """Clients may try again; where the database is stays our business."""
    take_away("get_runs")

    answer = await client.get("/runs")

    assert (answer.status, answer.error) == (503, "The database is not available, try again later")


@pytest.mark.parametrize("method", ["snapshot", "events_after"])
async def test_a_stream_that_cannot_open_is_answered_too(
    client: Client, durably: Durably, take_away, method: str
) -> None:
    """And leaves nothing behind: no feed that would be filled for nobody."""
    async with client.stream("/runs/subscribe") as stream:
        await stream.until(lambda: stream.last_event_id)
    take_away(method)

    answer = await client.get("/runs/subscribe", headers={"last-event-id": stream.last_event_id})

    assert answer.status == 503
    run_id = await client.trigger("echo", 1)
    await durably.process_one()
    await client.trigger("echo", 2)
    await durably.process_one()
    assert (stream_tasks(), kept_events(run_id)) == ([], [])


async def test_a_stream_that_loses_its_database_ends_and_goes_on_later(
    client: Client, take_away, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow client reads on from the log; when that fails its stream ends, and the next one has what it missed."""
    async with client.stream("/runs/subscribe") as stream:
        await stream.until(lambda: stream.last_event_id)
        stream.stop_reading()
        for number in range(1_100):
            last = await client.trigger("echo", number)
        with monkeypatch.context():
            take_away("events_after")
            stream.read_on()
            await stream.until_end()
        assert len(stream.events) < 1_100
        monkeypatch.undo()

    async with client.resume("/runs/subscribe", stream.last_event_id) as resumed:
        await resumed.until_event("run:trigger", runId=last)
    assert len(stream.events) + len(resumed.events) == 1_100


async def test_a_body_that_never_ends(client: Client) -> None:
    """A client that leaves in the middle of its request is no error of ours."""
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await client.application(client.request_scope("POST", "/trigger", None), receive, send)

    assert sent[0]["status"] == 400


async def test_a_worker_error_is_no_event_of_a_run(client: Client, durably: Durably) -> None:
    """`worker:error` and `run:lease-renewed` tell of the process; the wire has no place for them."""
    from datetime import UTC, datetime

    from durably import WorkerErrorEvent

    async with client.stream("/runs/subscribe") as stream:
        durably.storage.announce(WorkerErrorEvent(timestamp=datetime.now(UTC), error="oops", context="test"))
        run_id = await client.trigger("echo", 1)
        await stream.until_event("run:trigger", runId=run_id)

    assert stream.types() == ["run:trigger"]
    async with client.resume("/runs/subscribe", "0.0") as resumed:
        await resumed.until_event("run:trigger", runId=run_id)
    assert resumed.types() == ["run:trigger"]
