"""`GET /runs/subscribe`: what happens to all runs that match, as slim as a list needs it."""

import asyncio

import pytest

from durably import Durably, define_job
from tests.conftest import Gate, OpenDurably
from tests.http.asgi import Client
from tests.http.conftest import Gates, echo, mounted


async def test_a_run_from_trigger_to_completion(client: Client) -> None:
    """No timestamp, no sequence, no input or output; a log brings its data, a step its place."""
    async with client.stream("/runs/subscribe") as stream:
        run_id = await client.trigger("greet", {"name": "Ada"}, labels={"org": "a"})
        await stream.until_event("run:complete")

    of = {"runId": run_id, "jobName": "greet", "labels": {"org": "a"}}
    assert [event.data for event in stream.events] == [
        {"type": "run:trigger", **of},
        {"type": "run:leased", **of},
        {
            "type": "log:write",
            **of,
            "stepName": None,
            "level": "info",
            "message": "greeting",
            "data": {"name": "Ada"},
        },
        {"type": "step:start", **of, "stepName": "compose", "stepIndex": 0},
        {"type": "step:complete", **of, "stepName": "compose", "stepIndex": 0},
        {"type": "run:progress", **of, "progress": {"current": 1, "total": 1, "message": "done"}},
        {"type": "run:complete", **of},
    ]
    assert not stream.ended


async def test_a_failing_step_tells_its_error(client: Client) -> None:
    async with client.stream("/runs/subscribe") as stream:
        await client.trigger("fail", None)
        failed = await stream.until_event("run:fail")

    (step,) = [event for event in stream.events if event.type == "step:fail"]
    assert step["error"] == "it broke"
    assert "error" not in failed.data


async def test_a_cancelled_run_cancels_its_step(client: Client, gates: Gates) -> None:
    """S5: `run:cancel`, then `step:cancel` of the step that was interrupted."""
    async with client.stream("/runs/subscribe") as stream:
        run_id = await client.trigger("gated", "a")
        await gates["a"].reached()
        await client.post(f"/cancel?runId={run_id}")
        await stream.until_event("step:cancel", stepName="wait", stepIndex=0)

    assert stream.types()[-2:] == ["run:cancel", "step:cancel"]


async def test_no_progress_follows_the_end_of_a_run(client: Client, durably: Durably) -> None:
    """S5: a cancelled job may clean up, and tell progress meanwhile; to those who watch, the run is over."""
    gate = Gate()

    @define_job(name="untidy")
    async def untidy(step, input: None) -> None:
        try:
            await step.run("wait", gate.pass_through)
        finally:
            step.progress(99)
            step.log.info("cleaned")

    durably.register({"untidy": untidy})
    async with client.stream("/runs/subscribe") as stream:
        run_id = await client.trigger("untidy", None)
        await gate.reached()
        await client.post(f"/cancel?runId={run_id}")
        await stream.until_event("log:write", message="cleaned")

    assert "run:progress" not in stream.types()


@pytest.fixture
async def resting(open_durably: OpenDurably) -> Durably:
    """An instance without a worker."""
    return await open_durably(echo)


async def test_a_coalesced_trigger_speaks_of_the_kept_run(resting: Durably) -> None:
    """It is filtered by the labels of the kept run, and there is no `run:trigger` for it; idempotent: nothing."""
    client = mounted(resting)
    async with client.stream("/runs/subscribe?label.org=a") as stream:
        kept = await client.trigger("echo", "kept", concurrencyKey="k", idempotencyKey="i", labels={"org": "a"})
        await client.trigger("echo", "skipped", concurrencyKey="k", coalesce="skip", labels={"org": "b"})
        await client.trigger("echo", "same", idempotencyKey="i", labels={"org": "a"})
        last = await client.trigger("echo", "last", labels={"org": "a"})
        await stream.until_event("run:trigger", runId=last)

    assert stream.types() == ["run:trigger", "run:coalesced", "run:trigger"]
    assert stream.events[1].data == {
        "type": "run:coalesced",
        "runId": kept,
        "jobName": "echo",
        "labels": {"org": "a"},
        "skippedInput": "skipped",
        "skippedLabels": {"org": "b"},
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["a", "b", "c"]),
        ("?jobName=echo", ["a", "b"]),
        ("?jobName=echo&jobName=greet", ["a", "b", "c"]),
        ("?jobName=", []),
        ("?label.org=1", ["a", "c"]),
        ("?label.org=1&label.tier=x", ["a"]),
        ("?jobName=greet&label.org=1", ["c"]),
        ("?label.org=2&label.org=1", ["a", "c"]),
    ],
)
async def test_filters(open_durably: OpenDurably, query: str, expected: list[str]) -> None:
    """Any of the jobs, all of the labels; of a repeated label the last counts."""
    from tests.http.conftest import greet

    client = mounted(await open_durably(echo, greet))
    async with client.stream(f"/runs/subscribe{query}") as stream, client.stream("/runs/subscribe") as everything:
        names = {
            await client.trigger("echo", 1, labels={"org": "1", "tier": "x"}): "a",
            await client.trigger("echo", 1, labels={"org": "2"}): "b",
            await client.trigger("greet", {"name": "Ada"}, labels={"org": "1"}): "c",
        }
        await everything.until(lambda: len(everything.events) == 3)
        await stream.until(lambda: len(stream.events) >= len(expected))
        # What the filter lets through by mistake would come with what went to the unfiltered stream.
        for _ in range(20):
            await asyncio.sleep(0)
        assert [names[event["runId"]] for event in stream.events] == expected


async def test_a_filter_that_cannot_be_one_is_refused_before_the_stream(client: Client) -> None:
    answer = await client.get("/runs/subscribe?label.bad%20key=1")

    assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
