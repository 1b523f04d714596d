"""D5: every operation is one round trip, and what is said when there is no good answer."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durably import BatchItem, StepContext, define_job, with_log_persistence
from durably.core.errors import StoreError, StoreUnavailableError
from durably.core.events import WorkerErrorEvent
from durably.core.leases import Claim
from durably.core.store import Position, RunQuery
from durably.stores.libsql import group_commit
from tests.conftest import OpenDurably
from tests.libsql.middleman import Answer, Middleman
from tests.libsql.server import LibsqlServer, free_port


@define_job(name="echo")
async def echo(step: StepContext, input: Any) -> Any:
    return input


LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
A_CLAIM = Claim("nobody", 1, "me", LONG_AGO)

OPERATIONS = {
    "trigger": lambda durably: durably.jobs.echo.trigger(1, labels={"a": "b"}),
    "trigger with keys": lambda durably: durably.jobs.echo.trigger(
        1, idempotency_key="i", concurrency_key="c", coalesce="skip"
    ),
    "batch_trigger": lambda durably: durably.jobs.echo.batch_trigger([1, 2, BatchItem(3, concurrency_key="c")]),
    "get_run": lambda durably: durably.get_run("nobody"),
    "get_runs": lambda durably: durably.get_runs(status=["pending", "failed"], job_name=["echo", "x"], limit=5),
    "find_idempotent": lambda durably: durably.storage.find_idempotent("echo", "k"),
    "get_steps": lambda durably: durably.get_steps("nobody"),
    "purge": lambda durably: durably.purge_runs(older_than=timedelta(days=1)),
    "claim": lambda durably: durably.storage.claim("me", ["echo", "x"], 5, 30),
    "release": lambda durably: durably.storage.release([A_CLAIM]),
    "recover_expired": lambda durably: durably.storage.recover_expired(),
    "load_checkpoints": lambda durably: durably.storage.load_checkpoints("nobody"),
    "save_progress": lambda durably: durably.storage.save_progress(A_CLAIM, "{}"),
    "which_ended": lambda durably: durably.storage.which_ended(["a", "b"]),
    "events_after": lambda durably: durably.storage.events_after(Position.behind(0), 10),
    "snapshot": lambda durably: durably.storage.snapshot("nobody"),
    "maintain": lambda durably: durably.storage.maintain(idle=True),
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_an_operation_is_one_round_trip(open_durably: OpenDurably, between: Middleman, operation: str) -> None:
    """D5: triggering by keys, claiming and cancelling too, which look before they write."""
    durably = await open_durably(echo, database=between.url)
    between.requests.clear()

    await OPERATIONS[operation](durably)

    assert len(between.asked) == 1


async def test_cancelling_and_deleting_are_one_round_trip_each(open_durably: OpenDurably, between: Middleman) -> None:
    durably = await open_durably(echo, database=between.url)
    run = await durably.jobs.echo.trigger(1)
    between.requests.clear()

    await durably.cancel(run.id)
    await durably.delete_run(run.id)

    assert len(between.asked) == 2


async def test_what_is_written_at_one_moment_goes_out_together(open_durably: OpenDurably, between: Middleman) -> None:
    """D3, D5: group commit: while a request is under way everything else piles up for the next one."""
    durably = await open_durably(echo, database=between.url)
    between.requests.clear()
    between.may_pass.clear()
    first = asyncio.ensure_future(durably.jobs.echo.trigger(0))
    while not between.asked:
        await asyncio.sleep(0.001)
    others = [asyncio.ensure_future(durably.jobs.echo.trigger(n)) for n in range(1, 50)]
    await asyncio.sleep(0)
    between.may_pass.set()

    await asyncio.gather(first, *others)

    assert len(between.asked) == 2
    assert len(await durably.get_runs()) == 50


async def test_many_steps_are_as_many_statements_as_one(open_durably: OpenDurably, between: Middleman) -> None:
    """D5: the server prepares each statement anew, so what goes out together shares them."""
    both = asyncio.Barrier(2)

    @define_job(name="pair")
    async def pair(step: StepContext, input: int) -> int:
        await step.run("first", both.wait)
        return await step.run("second", both.wait)

    durably = await open_durably(pair, database=between.url)
    await durably.jobs.pair.batch_trigger([1, 2])
    between.requests.clear()
    await durably.process_until_idle()

    recorded = [request.sql for request in between.asked if "INSERT INTO durably_steps" in request.sql]
    assert [sql.count("INSERT INTO durably_steps") for sql in recorded] == [1, 1]
    assert {run.completed_step_count for run in await durably.get_runs()} == {2}


async def test_a_write_that_fails_fails_alone(open_durably: OpenDurably, server: LibsqlServer) -> None:
    """Group commit: those who shared its transaction are written all the same."""
    durably = await open_durably(echo)
    await server.ask("CREATE UNIQUE INDEX a_rule_of_somebody_else ON durably_runs (input)")

    results = await asyncio.gather(
        *[durably.jobs.echo.trigger(n) for n in ["a", "b", "b", "c"]], return_exceptions=True
    )

    (failed,) = [result for result in results if isinstance(result, BaseException)]
    assert isinstance(failed, StoreError)
    assert "UNIQUE" in str(failed)
    assert sorted(run.input for run in await durably.get_runs()) == ["a", "b", "c"]


class TestStreams:
    async def test_they_are_closed_where_the_server_knows_that(
        self, open_durably: OpenDurably, between: Middleman
    ) -> None:
        """A stream left open costs a server a connection until it times out."""
        between.wants_streams_closed = True
        durably = await open_durably(echo, database=between.url)

        await durably.jobs.echo.trigger(1)
        await durably.process_until_idle()

        assert between.requests
        assert {request.kinds[-1] for request in between.requests} == {"close"}

    async def test_a_server_that_cannot_close_is_asked_to_only_once(
        self, open_durably: OpenDurably, between: Middleman
    ) -> None:
        durably = await open_durably(echo, database=between.url)

        await durably.jobs.echo.trigger(1)

        asked = [request for request in between.requests if "close" in request.kinds]
        assert len(asked) == 1

    async def test_a_server_that_cannot_close_serves_first_requests_side_by_side(
        self, open_durably: OpenDurably, between: Middleman, server: LibsqlServer
    ) -> None:
        """What one answer tells of the server must not spoil the other one, which was sent before it."""
        await open_durably(echo)
        durably = await open_durably(echo, database=between.url, migrate=False)
        between.may_pass.clear()

        reads = asyncio.gather(durably.get_run("a"), durably.get_run("b"))
        while len(between.requests) < 2:
            await asyncio.sleep(0.001)
        between.may_pass.set()

        assert await reads == [None, None]


class TestErrors:
    async def test_the_token_goes_along_and_its_refusal_says_so(
        self, open_durably: OpenDurably, between: Middleman
    ) -> None:
        between.answer = lambda request: Answer(401, "Unauthorized: bad signature")
        url = f"libsql://127.0.0.1:{between.port}?tls=0&authToken=s3cret"
        durably = await open_durably(echo, database=url, migrate=False)

        with pytest.raises(StoreError, match=r"authToken.*401.*bad signature") as refused:
            await durably.migrate()

        assert between.requests[0].headers["authorization"] == "Bearer s3cret"
        assert not isinstance(refused.value, StoreUnavailableError)
        assert "s3cret" not in str(refused.value)

    async def test_a_server_that_is_not_there_may_come_back(self, open_durably: OpenDurably) -> None:
        port = free_port()
        durably = await open_durably(echo, database=f"http://127.0.0.1:{port}", migrate=False)

        with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{port} cannot be reached"):
            await durably.migrate()

    @pytest.mark.parametrize("status", [429, 500, 502, 503])
    async def test_a_server_that_cannot_now_may_later(
        self, open_durably: OpenDurably, between: Middleman, status: int
    ) -> None:
        durably = await open_durably(echo, database=between.url)
        between.answer = lambda request: Answer(status, "too many")

        with pytest.raises(StoreUnavailableError, match=f"cannot answer now .{status} too many"):
            await durably.get_runs()

    @pytest.mark.parametrize(
        "said",
        [
            Answer(200, "<html>Welcome</html>", "text/html"),
            Answer(200, "[]", "application/json"),
            Answer(200, '{"results":[]}', "application/json"),
            Answer(200, '{"results":[{"type":"ok","response":{"result":{"rows":[[{"type":"null"}]]}}}]}'),
        ],
    )
    async def test_another_kind_of_server_is_told_apart(
        self, open_durably: OpenDurably, between: Middleman, said: Answer
    ) -> None:
        durably = await open_durably(echo, database=between.url)
        between.answer = lambda request: said

        with pytest.raises(StoreError, match="does not answer as a libSQL server"):
            await durably.jobs.echo.trigger(1)

    async def test_a_path_that_leads_nowhere(self, open_durably: OpenDurably, between: Middleman) -> None:
        between.answer = lambda request: Answer(404, "no such page")
        durably = await open_durably(echo, database=between.url, migrate=False)

        with pytest.raises(StoreError, match="is there a libSQL server"):
            await durably.migrate()

    @pytest.mark.parametrize(
        ("code", "message", "may_succeed_later"),
        [
            ("SQLITE_BUSY", "database is locked", True),
            ("SQLITE_FULL", "database or disk is full", True),
            ("BLOCKED", "SQL write operations are forbidden", False),
        ],
    )
    async def test_what_the_server_says_of_a_statement(
        self,
        open_durably: OpenDurably,
        between: Middleman,
        monkeypatch: pytest.MonkeyPatch,
        code: str,
        message: str,
        *,
        may_succeed_later: bool,
    ) -> None:
        monkeypatch.setattr(group_commit, "BUSY_SECONDS", 0.05)
        durably = await open_durably(echo, database=between.url)
        error = {"type": "error", "error": {"message": message, "code": code}}
        between.answer = lambda request: Answer(200, json.dumps({"results": [error]}), "application/json")

        with pytest.raises(StoreError, match=message) as refused:
            await durably.jobs.echo.trigger(1)

        assert isinstance(refused.value, StoreUnavailableError) is may_succeed_later

    async def test_a_transaction_that_meets_another_waits_for_it(
        self, open_durably: OpenDurably, between: Middleman
    ) -> None:
        """D3: waiting for others is bounded, and hidden from the caller."""
        durably = await open_durably(echo, database=between.url)
        error = {"type": "error", "error": {"message": "database is locked", "code": "SQLITE_BUSY"}}
        busy = [Answer(200, json.dumps({"results": [error]}), "application/json")] * 3
        between.answer = lambda request: busy.pop() if busy and "INSERT INTO durably_runs" in request.sql else None

        run = await durably.jobs.echo.trigger(1)

        assert busy == []
        assert await durably.get_run(run.id) is not None

    async def test_tables_that_are_not_there_yet(self, open_durably: OpenDurably) -> None:
        durably = await open_durably(echo, migrate=False)

        with pytest.raises(StoreError, match=r"call init\(\) or migrate\(\) first"):
            await durably.jobs.echo.trigger(1)
        with pytest.raises(StoreError, match=r"call init\(\) or migrate\(\) first"):
            await durably.storage.get_runs(RunQuery())

    async def test_a_store_that_was_closed(self, open_durably: OpenDurably) -> None:
        durably = await open_durably(echo)
        await durably.close()

        with pytest.raises(StoreError, match="was closed"):
            await durably.get_runs()

    @pytest.mark.parametrize(
        "answer",
        [
            Answer(413, "too large"),
            Answer(
                200,
                '{"results": [{"type": "error", "error": {"message": "string or blob too big", '
                '"code": "SQLITE_TOOBIG"}}]}',
            ),
        ],
        ids=["server", "database"],
    )
    async def test_a_result_that_the_server_does_not_take_fails_its_step(
        self, open_durably: OpenDurably, between: Middleman, answer: Answer
    ) -> None:
        """S3: for good, by name; steps that were sent in the same request are stored."""
        both = asyncio.Barrier(2)

        @define_job(name="fetch")
        async def fetch(step: StepContext, input: str) -> str:
            await step.run("meet", both.wait)
            return await step.run("fetch", lambda: input * 2)

        durably = await open_durably(fetch, database=between.url)
        between.answer = lambda request: answer if "hugehuge" in json.dumps(request.body) else None
        await durably.jobs.fetch.batch_trigger(["huge", "tiny"])
        await durably.process_until_idle()

        tiny, huge = await durably.get_runs()
        assert (tiny.output, huge.status) == ("tinytiny", "failed")
        assert huge.error is not None
        assert huge.error.startswith("result of step 'fetch' cannot be stored, it is 10 characters of JSON: ")
        assert "of this size" in huge.error

    async def test_an_event_that_the_server_does_not_take_holds_nothing_up(
        self, open_durably: OpenDurably, between: Middleman, caplog: pytest.LogCaptureFixture
    ) -> None:
        """D5: it would go along with every write that follows, and have it refused."""
        durably = await open_durably(echo, database=between.url)
        between.answer = lambda request: Answer(413, "too large") if "huge" in json.dumps(request.body) else None
        durably.storage.announce(WorkerErrorEvent(timestamp=LONG_AGO, error="huge", context="test"))

        triggered = await asyncio.gather(
            durably.jobs.echo.trigger("huge"), durably.jobs.echo.trigger("small"), return_exceptions=True
        )

        assert "takes no request of this size" in str(triggered[0])
        assert [run.input for run in await durably.get_runs()] == ["small"]
        assert "1 events are missing in the log of events" in caplog.text

    async def test_only_the_log_line_that_the_server_does_not_take_is_lost(
        self, open_durably: OpenDurably, between: Middleman, caplog: pytest.LogCaptureFixture
    ) -> None:
        """P1: not those that were sent in the same request."""
        lines = [f"line {number}" if number != 13 else "huge" for number in range(40)]

        @define_job(name="chatty")
        async def chatty(step: StepContext, input: Any) -> None:
            for line in lines:
                step.log.info(line)

        durably = await open_durably(chatty, database=between.url)
        durably.use(with_log_persistence())
        between.answer = lambda request: Answer(413, "too large") if "huge" in json.dumps(request.body) else None
        run = await durably.jobs.chatty.trigger(None)
        await durably.process_one()

        assert [line.message for line in await durably.get_logs(run.id)] == [each for each in lines if each != "huge"]
        assert f"a log line of run {run.id} is lost" in caplog.text

    async def test_a_store_is_closed_while_its_server_is_away(
        self, open_durably: OpenDurably, between: Middleman, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nothing that was acknowledged is lost by it; what is lost is said."""
        durably = await open_durably(echo, database=between.url)
        between.answer = lambda request: Answer(503, "away")
        durably.storage.announce(WorkerErrorEvent(timestamp=LONG_AGO, error="late", context="test"))

        await durably.close()

        assert "the last events could not be written" in caplog.text
