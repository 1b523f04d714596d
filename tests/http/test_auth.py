"""Who may do what: the hooks, their order, how they reject, and what must not leak."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import HTTPException as FastApiHTTPException
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse

from durably import (
    AuthConfig,
    Durably,
    Reject,
    Run,
    RunFilter,
    RunOperation,
    RunsSubscribeFilter,
    TriggerRequest,
    ValidationError,
    create_durably_handler,
)
from tests.conftest import OpenDurably
from tests.http.asgi import Client
from tests.http.conftest import echo, greet, mounted


@pytest.fixture
async def durably(open_durably: OpenDurably) -> Durably:
    """An instance without a worker."""
    return await open_durably(echo, greet)


def organization(request: Request) -> str:
    if not request.headers.get("x-org"):
        raise HTTPException(401, "Unauthorized")
    return request.headers["x-org"]


def own_trigger(caller: str, trigger: TriggerRequest) -> None:
    if (trigger["labels"] or {}).get("org") != caller:
        raise HTTPException(403, "Forbidden")


def own_run(caller: str, run: Run, operation: RunOperation) -> None:
    if run.labels.get("org") != caller:
        raise HTTPException(403, "Forbidden")


def own_runs(caller: str, wanted: RunFilter) -> RunFilter:
    return {**wanted, "labels": {**(wanted.get("labels") or {}), "org": caller}}


BY_ORGANIZATION = AuthConfig(
    authenticate=organization, on_trigger=own_trigger, on_run_access=own_run, scope_runs=own_runs
)


@pytest.fixture
def clients(durably: Durably) -> Callable[[str], Client]:
    """A client of each organization, all of one mount."""
    client = mounted(durably, auth=BY_ORGANIZATION)
    return lambda name: Client(client.application, headers={"x-org": name} if name else {})


ENDPOINTS = [
    ("GET", "/runs"), ("GET", "/run"), ("GET", "/steps?runId=x"), ("GET", "/logs?runId=x"), ("GET", "/jobs"),
    ("POST", "/trigger"), ("POST", "/cancel?runId=x"), ("POST", "/retrigger"), ("DELETE", "/run?runId=x"),
    ("GET", "/subscribe?runId=x"), ("GET", "/runs/subscribe"), ("GET", "/openapi.json"), ("GET", "/nope"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
async def test_nothing_is_looked_at_before_the_caller_is_known(clients, method: str, path: str) -> None:
    """401 everywhere, on unknown paths and for a broken body too; plain text, as the hook said it."""
    answer = await clients("").request(method, path, body=b"{oops")

    assert (answer.status, answer.text) == (401, "Unauthorized")
    assert answer.headers["content-type"].startswith("text/plain")


async def test_a_trigger_must_be_the_callers_own(clients) -> None:
    body = {"jobName": "echo", "input": 1, "labels": {"org": "a"}}

    assert (await clients("a").post("/trigger", body)).status == 200
    assert (await clients("b").post("/trigger", body)).status == 403
    assert (await clients("a").post("/trigger", {**body, "labels": None})).status == 403


OPERATIONS = [
    ("GET", "/run", "read"), ("GET", "/steps", "steps"), ("GET", "/logs", "steps"), ("GET", "/subscribe", "subscribe"),
    ("POST", "/cancel", "cancel"), ("POST", "/retrigger", "retrigger"), ("DELETE", "/run", "delete"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
async def test_another_organizations_run_is_forbidden(clients, method: str, path: str, operation: str) -> None:
    run_id = await clients("a").trigger("echo", 1, labels={"org": "a"})

    answer = await clients("b").request(method, f"{path}?runId={run_id}")

    assert (answer.status, answer.text) == (403, "Forbidden")
    assert (await clients("a").get(f"/run?runId={run_id}")).body["status"] == "pending"


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
async def test_the_hook_is_told_the_operation(durably: Durably, method: str, path: str, operation: str) -> None:
    asked: list[tuple[str, str]] = []

    async def access(context: str, run: Run, operation: RunOperation) -> None:
        asked.append((run.id, operation))
        raise HTTPException(403, "Forbidden")

    client = mounted(durably, auth=AuthConfig(authenticate=lambda request: "x", on_run_access=access))
    run_id = await client.trigger("echo", 1)
    await client.request(method, f"{path}?runId={run_id}")

    assert asked == [(run_id, operation)]


async def test_lists_and_streams_are_narrowed(clients) -> None:
    """`scope_runs` has the last word on both, where there is no `scope_runs_subscribe`."""
    async with clients("b").stream("/runs/subscribe?label.org=a") as stream:
        await clients("a").trigger("echo", 1, labels={"org": "a"})
        own = await clients("b").trigger("echo", 1, labels={"org": "b"})
        await stream.until_event("run:trigger", runId=own)

    assert len(stream.events) == 1
    assert [run["id"] for run in (await clients("b").get("/runs?label.org=a")).body] == [own]


async def test_the_stream_has_a_scope_of_its_own(durably: Durably) -> None:
    def scope(context: str, wanted: RunsSubscribeFilter) -> RunsSubscribeFilter:
        assert wanted == {"job_name": ["echo"], "labels": {}}
        return {"job_name": "greet"}

    auth = AuthConfig(authenticate=lambda request: "x", scope_runs=own_runs, scope_runs_subscribe=scope)
    client = mounted(durably, auth=auth)
    async with client.stream("/runs/subscribe?jobName=echo") as stream:
        await client.trigger("echo", 1)
        await client.trigger("greet", {"name": "Ada"})
        await stream.until_event("run:trigger", jobName="greet")

    assert len(stream.events) == 1


@pytest.mark.parametrize("nothing", [{"job_name": []}, {"job_name": ()}, {"status": []}, {"limit": 0}], ids=repr)
async def test_a_scope_of_nothing_leaves_nothing(durably: Durably, nothing: RunFilter) -> None:
    """Whoever may see none of the jobs must not see all of them."""

    def scope(caller: str, wanted: RunFilter) -> RunFilter:
        return {**wanted, **nothing} if caller == "nobody" else wanted

    auth = AuthConfig(authenticate=lambda request: request.headers["x-org"], scope_runs=scope)
    application = mounted(durably, auth=auth).application
    nobody, anybody = (Client(application, headers={"x-org": name}) for name in ("nobody", "anybody"))
    async with nobody.stream("/runs/subscribe") as closed, anybody.stream("/runs/subscribe") as opened:
        run_ids = [await anybody.trigger("echo", number) for number in range(3)]
        await opened.until_event("run:trigger", runId=run_ids[-1])

    assert closed.events == []
    assert (await nobody.get("/runs")).body == []
    assert len((await anybody.get("/runs")).body) == 3


async def test_a_scope_by_status_shows_nothing_on_a_stream_rather_than_all(
    durably: Durably, caplog: pytest.LogCaptureFixture
) -> None:
    """A list can be narrowed by it, a stream cannot: who wrote the hook learns what to give in its place."""

    def only_failed(context: None, wanted: RunFilter) -> RunFilter:
        return {**wanted, "status": ["failed"]}

    client = mounted(durably, auth=AuthConfig(authenticate=lambda request: None, scope_runs=only_failed))
    await client.trigger("echo", 1)

    assert (await client.get("/runs")).body == []
    assert (await client.get("/runs/subscribe")).status == 500
    assert "Give scope_runs_subscribe" in caplog.text


async def test_the_order_of_a_trigger(durably: Durably) -> None:
    """authenticate, on_request, jobName, job exists, on_trigger, and only then the rest of the trigger."""
    called: list[str] = []
    auth = AuthConfig(
        authenticate=lambda request: called.append("authenticate"),
        on_trigger=lambda context, trigger: called.append("on_trigger"),
    )
    client = mounted(durably, auth=auth, on_request=lambda: called.append("on_request"))

    async def order(body: dict[str, Any]) -> tuple[list[str], int]:
        called.clear()
        answer = await client.post("/trigger", body)
        return list(called), answer.status

    assert await order({}) == (["authenticate", "on_request"], 400)
    assert await order({"jobName": "nobody"}) == (["authenticate", "on_request"], 404)
    for refused in ({}, {"input": 1, "coalesce": "x"}, {"input": 1, "labels": {"bad key": "x"}}):
        assert await order({"jobName": "echo", **refused}) == (["authenticate", "on_request", "on_trigger"], 400)


async def test_the_order_for_a_run(durably: Durably) -> None:
    """runId, run exists, on_run_access, operation."""
    auth = AuthConfig(authenticate=lambda request: "b", on_run_access=own_run)
    client = mounted(durably, auth=auth)
    run_id = await client.trigger("echo", 1)

    assert (await client.post("/cancel")).status == 400
    assert (await client.post("/cancel?runId=nobody")).status == 404
    assert (await client.delete(f"/run?runId={run_id}")).status == 403


async def test_a_list_is_validated_before_it_is_scoped(durably: Durably) -> None:
    asked: list[RunFilter] = []

    def scope(context: None, wanted: RunFilter) -> RunFilter:
        asked.append(wanted)
        return wanted

    client = mounted(durably, auth=AuthConfig(authenticate=lambda request: None, scope_runs=scope))

    assert (await client.get("/runs?status=nope")).status == 400
    assert asked == []
    await client.get("/runs?status=failed&jobName=echo&limit=3&offset=1&label.a=b")
    assert asked == [{"status": ["failed"], "job_name": ["echo"], "limit": 3, "offset": 1, "labels": {"a": "b"}}]


@pytest.mark.parametrize("context", [None, False, 0, {}])
async def test_hooks_are_asked_whatever_the_context_is(durably: Durably, context: object) -> None:
    """An `authenticate` that returns nothing has let the caller in, not switched the other hooks off."""

    def forbid(*_: object) -> None:
        raise HTTPException(403, "Forbidden")

    auth = AuthConfig(authenticate=lambda request: context, on_trigger=forbid, on_run_access=forbid)
    run = await durably.jobs.echo.trigger(1)
    client = mounted(durably, auth=auth)

    assert (await client.post("/trigger", {"jobName": "echo", "input": 1})).status == 403
    assert (await client.get(f"/run?runId={run.id}")).status == 403


async def test_the_hook_of_a_trigger_sees_facts_of_the_promised_types(durably: Durably) -> None:
    """It comes before validation: what is malformed is left out of what it sees, and refused after it."""
    seen: list[TriggerRequest] = []
    auth = AuthConfig(authenticate=lambda request: None, on_trigger=lambda context, trigger: seen.append(trigger))
    client = mounted(durably, auth=auth)

    malformed = {"idempotencyKey": 5, "concurrencyKey": ["k"], "labels": {"org": "a", "n": 5}, "coalesce": {}}
    answer = await client.post("/trigger", {"jobName": "echo", "input": 1, **malformed})

    assert answer.status == 400
    assert seen == [
        {
            "job_name": "echo",
            "input": 1,
            "idempotency_key": None,
            "concurrency_key": None,
            "coalesce": None,
            "labels": {"org": "a"},
        }
    ]


async def test_a_plain_hook_may_block_and_an_async_one_may_await(durably: Durably) -> None:
    """A plain function runs in a thread of its own, as jobs do."""
    threads: dict[str, threading.Thread] = {}

    def authenticate(request: Request) -> str:
        threads["plain"] = threading.current_thread()
        return "caller"

    async def on_trigger(context: str, trigger: TriggerRequest) -> None:
        await asyncio.sleep(0)
        threads[context] = threading.current_thread()

    client = mounted(durably, auth=AuthConfig(authenticate=authenticate, on_trigger=on_trigger))
    await client.trigger("echo", 1)

    assert threads["caller"] is threading.main_thread()
    assert threads["plain"] is not threading.main_thread()


REJECTIONS = [
    (HTTPException(403, "No"), 403, "text/plain; charset=utf-8", "No"),
    (HTTPException(401), 401, "text/plain; charset=utf-8", "Unauthorized"),
    (HTTPException(204), 204, None, ""),
    (FastApiHTTPException(418, {"why": "tea"}), 418, "text/plain; charset=utf-8", '{"why": "tea"}'),
    (Reject(JSONResponse({"code": 7}, 402)), 402, "application/json", '{"code":7}'),
    (Reject(RedirectResponse("/login")), 307, None, ""),
]


@pytest.mark.parametrize(("error", "status", "media_type", "text"), REJECTIONS)
async def test_a_rejection_goes_out_as_it_is(durably: Durably, error, status, media_type, text) -> None:
    def reject(request: Request) -> None:
        raise error

    answer = await mounted(durably, auth=AuthConfig(authenticate=reject)).get("/runs")

    assert (answer.status, answer.headers.get("content-type"), answer.text) == (status, media_type, text)


async def test_headers_of_a_rejection_go_out_too(durably: Durably) -> None:
    def reject(request: Request) -> None:
        raise HTTPException(401, "Unauthorized", {"www-authenticate": "Bearer"})

    answer = await mounted(durably, auth=AuthConfig(authenticate=reject)).get("/runs")

    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("hook", ["authenticate", "on_trigger", "on_run_access", "scope_runs", "scope_runs_subscribe"])
async def test_a_hook_that_breaks_tells_nothing_internal(durably: Durably, hook: str, caplog) -> None:
    """500 with a generic text; the error is in the log, where it belongs."""

    def explode(*_: object) -> Any:
        raise RuntimeError("password of the backend: hunter2")

    run = await durably.jobs.echo.trigger(1)
    hooks = {"authenticate": lambda request: None, hook: explode}
    client = mounted(durably, auth=AuthConfig(**hooks))
    requests = {
        "authenticate": ("GET", "/runs"),
        "on_trigger": ("POST", "/trigger"),
        "on_run_access": ("GET", f"/run?runId={run.id}"),
        "scope_runs": ("GET", "/runs"),
        "scope_runs_subscribe": ("GET", "/runs/subscribe"),
    }
    method, path = requests[hook]

    answer = await client.request(method, path, json={"jobName": "echo", "input": 1})

    assert (answer.status, answer.error) == (500, "Internal server error")
    assert "hunter2" in caplog.text


@pytest.mark.parametrize("hook", ["scope_runs", "scope_runs_subscribe"])
@pytest.mark.parametrize(
    "filter",
    [None, "mine", {"jobName": "echo"}, {"labels": {"org": 7}}, {"limit": -1}, {"status": "unheard of"}],
    ids=["nothing", "text", "a key that is none", "a label that is none", "a limit that is none", "an unknown status"],
)
async def test_a_filter_that_is_none_lets_nothing_through(durably: Durably, hook: str, filter: Any, caplog) -> None:
    """500, and the log names the hook; ignored, a misspelt key would have shown a caller the runs of everybody."""
    hooks = {"authenticate": lambda request: None, hook: lambda context, wanted: filter}
    client = mounted(durably, auth=AuthConfig(**hooks))

    answer = await client.get("/runs" if hook == "scope_runs" else "/runs/subscribe")

    assert (answer.status, answer.error) == (500, "Internal server error")
    assert f"auth.{hook} returned" in caplog.text


def test_a_rejection_needs_a_response() -> None:
    """Said where it is raised, in place of a missing attribute."""
    with pytest.raises(TypeError, match=r"Reject needs a Response.*'No'"):
        Reject("No")  # type: ignore[arg-type]


@pytest.mark.parametrize("keys", [{"idempotencyKey": "k"}, {"concurrencyKey": "k"}])
async def test_a_key_that_hits_a_hidden_run_does_not_reveal_it(clients, keys: dict[str, str]) -> None:
    """409 with a neutral text: neither the id of another's run nor that it is one's own key that hit it."""
    hidden = await clients("a").trigger("echo", 1, labels={"org": "a"}, **keys)
    body = {"jobName": "echo", "input": 2, "labels": {"org": "b"}, **keys}

    for options in ({}, {"coalesce": "skip"} if "concurrencyKey" in keys else {}):
        answer = await clients("b").post("/trigger", {**body, **options})
        assert (answer.status, answer.error) == (409, "The trigger conflicts with another run")
        assert hidden not in answer.text


async def test_a_trigger_that_may_not_join_a_run_is_told_to_nobody(clients, durably: Durably) -> None:
    """The streams of a hidden run say nothing of it; those of one's own run do."""
    told: list[str] = []
    durably.on("run:coalesced", lambda event: told.append(event.run_id))
    await clients("a").trigger("echo", 1, labels={"org": "a"}, concurrencyKey="theirs")
    mine = await clients("b").trigger("echo", 1, labels={"org": "b"}, concurrencyKey="mine")

    joining = {"jobName": "echo", "input": 2, "labels": {"org": "b"}, "coalesce": "skip"}
    refused = await clients("b").post("/trigger", {**joining, "concurrencyKey": "theirs"})
    joined = await clients("b").post("/trigger", {**joining, "concurrencyKey": "mine"})
    made = await clients("b").post("/trigger", {**joining, "concurrencyKey": "nobody's"})

    assert refused.status == 409
    assert joined.body == {"runId": mine, "disposition": "coalesced"}
    assert made.body["disposition"] == "created"
    assert told == [mine]


async def test_a_run_that_takes_the_place_of_another_is_looked_at_as_well(durably: Durably) -> None:
    """What the hook has let pass is joined, and nothing that came under the key meanwhile."""
    told: list[str] = []
    durably.on("run:coalesced", lambda event: told.append(event.run_id))
    visible = await durably.jobs.echo.trigger(1, labels={"org": "b"}, concurrency_key="k")
    looked_at: list[str] = []

    async def replace_when_seen(_: None, run: Run, operation: RunOperation) -> None:
        looked_at.append(run.labels["org"])
        if run.labels["org"] != "b":
            raise HTTPException(403, "Forbidden")
        await durably.cancel(run.id)
        await durably.jobs.echo.trigger(2, labels={"org": "a"}, concurrency_key="k")

    auth = AuthConfig(authenticate=lambda request: None, on_run_access=replace_when_seen)
    body = {"jobName": "echo", "input": 3, "concurrencyKey": "k", "coalesce": "skip"}
    answer = await mounted(durably, auth=auth).post("/trigger", body)

    assert (answer.status, answer.error) == (409, "The trigger conflicts with another run")
    assert visible.id not in answer.text
    assert (looked_at, told) == (["b", "a"], [])


async def test_a_retrigger_that_hits_a_hidden_run_does_not_reveal_it(clients, durably: Durably) -> None:
    mine = await clients("b").trigger("echo", 1, labels={"org": "b"}, concurrencyKey="k")
    await durably.process_one()
    await clients("a").trigger("echo", 1, labels={"org": "a"}, concurrencyKey="k")

    answer = await clients("b").post(f"/retrigger?runId={mine}")

    assert (answer.status, answer.error) == (409, "The trigger conflicts with another run")


async def test_a_retrigger_that_hits_ones_own_run_says_which(clients, durably: Durably) -> None:
    order = {"labels": {"org": "a"}, "concurrencyKey": "k"}
    ended = await clients("a").trigger("echo", 1, **order)
    await durably.process_one()
    waiting = await clients("a").trigger("echo", 1, **order)

    answer = await clients("a").post(f"/retrigger?runId={ended}")

    assert answer.error == (f"Cannot retrigger run {ended}: run {waiting} of its job and concurrency key waits already")


async def test_a_conflict_with_ones_own_run_says_what_to_do(clients) -> None:
    body = {"jobName": "echo", "input": 1, "labels": {"org": "a"}, "concurrencyKey": "k"}
    await clients("a").post("/trigger", body)

    assert "Use coalesce: 'skip'" in (await clients("a").post("/trigger", body)).error


async def test_on_request_is_given_the_request_where_it_could_do_without(durably: Durably) -> None:
    """A parameter with a default is one that takes an argument."""
    given: list[Request | None] = []

    def note(request: Request | None = None) -> None:
        given.append(request)

    await mounted(durably, on_request=note).get("/runs")

    assert [request and request.url.path for request in given] == ["/api/durably/runs"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_on_request_may_take_the_request_and_may_be_async(durably: Durably, is_async: bool) -> None:
    """It is called after `authenticate`, for every request that was let in."""
    paths: list[str] = []

    def note(request: Request) -> None:
        paths.append(request.url.path)

    async def note_async(request: Request) -> None:
        note(request)

    client = mounted(durably, on_request=note_async if is_async else note)
    await client.get("/runs")
    await client.get("/nope")

    assert paths == ["/api/durably/runs", "/api/durably/nope"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sse_throttle": -1}, "Invalid sse_throttle -1: must be a number of seconds, 0 or more, or a timedelta"),
        ({"sse_throttle": "1"}, "Invalid sse_throttle '1'"),
        ({"sse_throttle": False}, "Invalid sse_throttle False: must be a number of seconds"),
        ({"auth": {"authenticate": len}}, "Invalid auth {"),
        ({"on_request": 5}, "Invalid on_request 5: must be a function"),
        ({"max_body_size": 0}, "Invalid max_body_size 0: must be a number of bytes above 0"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(durably: Durably, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        create_durably_handler(durably, **options)

    assert text in str(refused.value)


def test_a_hook_must_be_a_function() -> None:
    with pytest.raises(ValidationError, match=r"Invalid auth\.on_trigger 5: must be a function"):
        AuthConfig(authenticate=lambda request: None, on_trigger=5)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=r"Invalid auth\.authenticate None"):
        AuthConfig(authenticate=None)  # type: ignore[arg-type]


def test_the_instance_must_be_one() -> None:
    with pytest.raises(ValidationError, match="Invalid durably 'x': must be an instance made by create_durably"):
        create_durably_handler("x")  # type: ignore[arg-type]
