"""Whatever is sent: an answer in the words of the wire, never a 500 and never a broken stream."""

import asyncio
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import OpenDurably
from tests.http.asgi import encode
from tests.http.conftest import echo, fail, greet, mounted

FUZZ = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
bodies = st.one_of(
    st.binary(max_size=60),
    anything.map(encode),
    st.fixed_dictionaries(
        {"jobName": st.sampled_from(["echo", "greet", "fail"]) | anything, "input": anything},
        optional={
            "idempotencyKey": anything,
            "concurrencyKey": anything,
            "coalesce": st.just("skip") | anything,
            "labels": st.dictionaries(st.text(), st.text()) | anything,
        },
    ).map(encode),
)


async def test_no_body_breaks_a_trigger(open_durably: OpenDurably) -> None:
    client = mounted(await open_durably(echo, greet, fail))
    loop = asyncio.get_running_loop()

    @FUZZ
    @given(body=bodies)
    def fuzz(body: bytes) -> None:
        answer = asyncio.run_coroutine_threadsafe(client.post("/trigger", body=body), loop).result(30)
        assert answer.status in (200, 400, 404, 409), answer.text
        assert answer.status == 200 or answer.error

    await asyncio.to_thread(fuzz)


names = (
    st.sampled_from(["jobName", "status", "limit", "offset", "label.a", "label.", "lastEventId", "runId"]) | st.text()
)
queries = st.lists(st.tuples(names, st.text() | st.integers().map(str)), max_size=4)


async def test_no_query_breaks_a_list_or_a_stream(open_durably: OpenDurably) -> None:
    client = mounted(await open_durably(echo))
    run_id = await client.trigger("echo", 1)
    await client.post(f"/cancel?runId={run_id}")
    loop = asyncio.get_running_loop()

    async def ask(query: str) -> None:
        for path in ("/runs", "/run", "/steps", "/logs"):
            answer = await client.get(f"{path}?{query}")
            assert answer.status in (200, 400, 404), answer.text
        for path, known in (("/runs/subscribe?", ""), ("/subscribe?", f"&runId={run_id}")):
            async with client.stream(path + query + known) as stream:
                assert stream.status in (200, 400, 404)

    @FUZZ
    @given(query=queries)
    def fuzz(query: list[tuple[str, str]]) -> None:
        encoded = "&".join(f"{quote(name)}={quote(value)}" for name, value in query)
        asyncio.run_coroutine_threadsafe(ask(encoded), loop).result(30)

    await asyncio.to_thread(fuzz)
