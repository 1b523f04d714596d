"""Every endpoint: what it answers, and what it says when it cannot (wire.md, "Answers")."""

import re

import pytest

from durably import Durably, with_log_persistence
from tests.conftest import Events
from tests.http.asgi import Client
from tests.http.conftest import Ended, Gates

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
RUN_FIELDS = {
    "id",
    "jobName",
    "input",
    "status",
    "currentStepIndex",
    "completedStepCount",
    "progress",
    "output",
    "error",
    "labels",
    "startedAt",
    "completedAt",
    "createdAt",
    "isTerminal",
    "isActive",
}


async def test_a_trigger_makes_a_run(client: Client, ended: Ended) -> None:
    """`POST /trigger` answers with the id of the run, which a worker then executes."""
    answer = await client.post("/trigger", {"jobName": "greet", "input": {"name": "Ada"}, "labels": {"org": "a"}})

    assert (answer.status, answer.body["disposition"]) == (200, "created")
    assert answer.headers["content-type"] == "application/json"
    run = await ended(answer.body["runId"])
    assert (run.output, run.labels) == ({"text": "hello Ada"}, {"org": "a"})


async def test_a_run_as_clients_see_it(client: Client, ended: Ended) -> None:
    """`GET /run`: camelCase, timestamps with milliseconds and Z, no keys and no lease."""
    run_id = await client.trigger("greet", {"name": "Ada"}, idempotencyKey="once", concurrencyKey="one at a time")
    await ended(run_id)

    run = (await client.get(f"/run?runId={run_id}")).body

    assert set(run) == RUN_FIELDS
    assert all(INSTANT.fullmatch(run[name]) for name in ("createdAt", "startedAt", "completedAt"))
    assert run["progress"] == {"current": 1, "total": 1, "message": "done"}
    assert (run["status"], run["isTerminal"], run["isActive"]) == ("completed", True, False)
    assert (run["output"], run["error"]) == ({"text": "hello Ada"}, None)
    assert (run["currentStepIndex"], run["completedStepCount"]) == (1, 1)


async def test_what_is_absent_is_left_out_of_progress(client: Client, durably: Durably, gates: Gates) -> None:
    """A progress without total or message has no such fields, rather than null ones."""
    from durably import define_job

    @define_job(name="half-way")
    async def half_way(step, input: None) -> None:
        step.progress(0.5)

    durably.register({"half_way": half_way})
    run_id = await client.trigger("half-way", None)
    await durably.wait_for_run(run_id, timeout=30)

    assert (await client.get(f"/run?runId={run_id}")).body["progress"] == {"current": 0.5}


@pytest.mark.parametrize("value", [None, 0, False, "", [], {}, -1.5, 1e22, 10**30, "värde \u2028 \n"])
async def test_falsy_and_odd_values_come_back_as_they_went_in(client: Client, ended: Ended, value: object) -> None:
    """A null, a zero or an empty text is a value, not the absence of one."""
    run_id = await client.trigger("echo", value)
    await ended(run_id)

    run = (await client.get(f"/run?runId={run_id}")).body

    assert (run["input"], run["output"]) == (value, value)


async def test_steps_of_a_run(client: Client, durably: Durably, gates: Gates) -> None:
    """`GET /steps` lists the finished steps of a run that executes."""
    events = Events(durably)
    run_id = await client.trigger("gated", "a")
    await gates["a"].reached()
    assert (await client.get(f"/steps?runId={run_id}")).body == []

    gates["a"].open()
    await events.until("run:complete")

    assert (await client.get(f"/steps?runId={run_id}")).body == []


async def test_kept_steps_name_results_and_errors(open_durably) -> None:
    """Where steps are preserved, `GET /steps` still shows them after the end."""
    from tests.http.conftest import fail, greet, mounted

    durably = await open_durably(greet, fail, preserve_steps=True)
    client = mounted(durably)
    good, bad = await client.trigger("greet", {"name": "Ada"}), await client.trigger("fail", {})
    await durably.process_until_idle()

    (composed,) = (await client.get(f"/steps?runId={good}")).body
    (broken,) = (await client.get(f"/steps?runId={bad}")).body

    assert composed.keys() == {
        "id", "runId", "name", "index", "status", "output", "error", "startedAt", "completedAt",
    }  # fmt: skip
    assert (composed["name"], composed["index"], composed["output"]) == ("compose", 0, "hello Ada")
    assert (broken["status"], broken["output"], broken["error"]) == ("failed", None, "it broke")


async def test_stored_logs_of_a_run(client: Client, durably: Durably, ended: Ended) -> None:
    """`GET /logs`, an addition of ours: the lines that log persistence stored."""
    durably.use(with_log_persistence())
    run_id = await client.trigger("greet", {"name": "Ada"})
    await ended(run_id)
    await durably.stop()

    (line,) = (await client.get(f"/logs?runId={run_id}")).body

    assert INSTANT.fullmatch(line.pop("createdAt"))
    assert line.pop("id")
    assert line == {
        "runId": run_id, "stepName": None, "level": "info", "message": "greeting", "data": {"name": "Ada"},
    }  # fmt: skip


async def test_jobs_and_their_schemas(client: Client) -> None:
    """`GET /jobs`, an addition of ours: names and JSON Schemas; null where anything goes."""
    jobs = {job["name"]: job for job in (await client.get("/jobs")).body}

    assert set(jobs) == {"greet", "echo", "fail", "gated"}
    assert jobs["greet"]["inputSchema"]["properties"]["name"]["type"] == "string"
    assert jobs["greet"]["outputSchema"]["required"] == ["text"]
    assert (jobs["echo"]["inputSchema"], jobs["echo"]["outputSchema"]) == (None, None)


async def test_retrigger_makes_a_fresh_run(client: Client, ended: Ended) -> None:
    """R9: `POST /retrigger` answers with the id of the fresh run."""
    run_id = await client.trigger("echo", [1], labels={"org": "a"})
    await ended(run_id)

    answer = await client.post(f"/retrigger?runId={run_id}")

    assert answer.body["success"] is True
    fresh = await ended(answer.body["runId"])
    assert fresh.id != run_id
    assert (fresh.input, fresh.labels) == ([1], {"org": "a"})


async def test_cancel_and_delete(client: Client, gates: Gates) -> None:
    """R10: a run that executes can be cancelled, an ended one deleted."""
    run_id = await client.trigger("gated", "a")
    await gates["a"].reached()

    assert (await client.post(f"/cancel?runId={run_id}")).body == {"success": True}
    assert (await client.get(f"/run?runId={run_id}")).body["status"] == "cancelled"
    assert (await client.delete(f"/run?runId={run_id}")).body == {"success": True}
    assert (await client.get(f"/run?runId={run_id}")).status == 404


async def test_what_the_state_of_a_run_forbids_is_a_conflict(client: Client, ended: Ended, gates: Gates) -> None:
    """R9, R10: 409, with a text that names the state and the run."""
    done, held = await client.trigger("echo", 1), await client.trigger("gated", "a")
    await ended(done)
    await gates["a"].reached()

    assert (await client.post(f"/cancel?runId={done}")).error == f"Cannot cancel completed run: {done}"
    assert (await client.delete(f"/run?runId={held}")).error == f"Cannot delete leased run: {held}"
    assert (await client.post(f"/retrigger?runId={held}")).error == f"Cannot retrigger leased run: {held}"
    await client.post(f"/cancel?runId={held}")
    again = await client.post(f"/cancel?runId={held}")
    assert (again.status, again.error) == (409, f"Cannot cancel already cancelled run: {held}")


OF_A_RUN = [
    ("GET", "/run"),
    ("DELETE", "/run"),
    ("GET", "/steps"),
    ("GET", "/logs"),
    ("POST", "/cancel"),
    ("POST", "/retrigger"),
    ("GET", "/subscribe"),
]


@pytest.mark.parametrize(("method", "path"), OF_A_RUN)
async def test_a_run_must_be_named_and_exist(client: Client, method: str, path: str) -> None:
    """No `runId` or an empty one is a 400, an unknown one a 404; of a repeated one the first counts."""
    for query in ("", "?runId=", "?id=x", "?runId=&runId=x"):
        answer = await client.request(method, path + query)
        assert (answer.status, answer.error) == (400, "runId query parameter is required")

    unknown = await client.request(method, f"{path}?runId=nobody")
    assert (unknown.status, unknown.error) == (404, "Run not found")


async def test_of_a_repeated_run_id_the_first_counts(client: Client, ended: Ended) -> None:
    run_id = await client.trigger("echo", 1)
    await ended(run_id)

    assert (await client.get(f"/run?runId={run_id}&runId=other")).body["id"] == run_id


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nope"),
        ("GET", "/"),
        ("GET", "/runs/"),
        ("GET", "//runs"),
        ("GET", "/trigger"),
        ("POST", "/runs"),
        ("PUT", "/run?runId=x"),
        ("HEAD", "/runs"),
        ("OPTIONS", "/runs"),
    ],
)
async def test_unknown_paths_and_methods(client: Client, method: str, path: str) -> None:
    """404 with the plain text `Not Found`, for a trailing slash, HEAD and OPTIONS too."""
    answer = await client.request(method, path)

    assert (answer.status, answer.headers["content-type"]) == (404, "text/plain; charset=utf-8")
    assert answer.text == "Not Found"


async def test_the_document_describes_every_endpoint(client: Client) -> None:
    """`GET /openapi.json` names every path and method that the handler answers."""
    from durably.http.routes import ROUTES

    document = (await client.get("/openapi.json")).body

    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == set(ROUTES)


@pytest.mark.parametrize("path", ["/subscribe", "/runs/subscribe"])
async def test_the_document_says_how_a_stream_is_continued(client: Client, path: str) -> None:
    """By the header, or in the query where a client cannot send one."""
    document = (await client.get("/openapi.json")).body

    parameters = {(each["in"], each["name"]) for each in document["paths"][path]["get"]["parameters"]}
    assert {("header", "Last-Event-ID"), ("query", "lastEventId")} <= parameters
