"""R5 and get_runs: filters, order, pages."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from durably import BatchItem, Durably, RunStatus, StepContext, ValidationError, define_job
from durably.testing import FakeClock
from tests.conftest import OpenDurably


async def finish(step: StepContext, input: Any) -> Any:
    if input == "fail":
        raise ValueError("told to")


red, green = define_job(name="red", run=finish), define_job(name="green", run=finish)

LABELS = [{"org": "a", "env": "x"}, {"org": "a", "env": "y"}, {"org": "b", "env": "x"}, {}]


async def fill(durably: Durably) -> list[Any]:
    """Store runs of two jobs with four labellings in four states, and return them oldest first."""
    runs = []
    for labels in LABELS:
        for handle in (durably.jobs.red, durably.jobs.green):
            runs += [await handle.trigger(each, labels=labels) for each in ("ok", "fail")]
    await durably.process_until_idle()
    for labels in LABELS:
        for handle in (durably.jobs.red, durably.jobs.green):
            runs += [await handle.trigger(each, labels=labels) for each in ("cancel", "wait")]
            await durably.cancel(runs[-2].id)
    return [await durably.get_run(run.id) for run in runs]


class TestFilters:
    async def test_every_combination_of_filters_lists_what_matches_newest_first(
        self, open_durably: OpenDurably
    ) -> None:
        """R5: all filters must match; newest first; limit and offset cut out a page."""
        durably = await open_durably(red, green)
        runs = await fill(durably)
        statuses: list[Any] = [None, "pending", "failed", ["completed", "cancelled"], RunStatus.LEASED, []]
        names: list[Any] = [None, "red", ["red", "green"], ("green", "green"), "unknown", []]
        labels: list[Any] = [None, {}, {"org": "a"}, {"org": "a", "env": "x"}, {"org": "c"}, {"nope": "a"}]
        pages = [(None, None), (3, None), (2, 1), (None, 2), (0, 0), (100, 100)]

        async def check(status: Any, job_name: Any, wanted: Any, limit: int | None, offset: int | None) -> None:
            matching = [run for run in reversed(runs) if matches(run, status, job_name, wanted)]
            page = matching[offset or 0 :][: limit if limit is not None else len(matching)]
            found = await durably.get_runs(status=status, job_name=job_name, labels=wanted, limit=limit, offset=offset)
            assert found == page, (status, job_name, wanted, limit, offset)

        for status, job_name in itertools.product(statuses, names):
            # Side by side: a server reached by HTTP makes each wait.
            await asyncio.gather(
                *(check(status, job_name, wanted, *page) for wanted, page in itertools.product(labels, pages))
            )

    async def test_a_handle_lists_its_own_runs_only(self, open_durably: OpenDurably) -> None:
        """A handle knows nothing of other jobs' runs."""
        durably = await open_durably(red, green)
        runs = await fill(durably)

        assert {run.job_name for run in await durably.jobs.red.get_runs()} == {"red"}
        assert len(await durably.jobs.red.get_runs(status="pending", labels={"org": "a"}, limit=1, offset=1)) == 1
        foreign = next(run for run in runs if run.job_name == "green")
        for of_red in ("red", ["green", "red"], []):
            assert await durably.jobs.red.get_runs(job_name=of_red) == await durably.get_runs(job_name="red")
        assert await durably.jobs.red.get_runs(job_name="green") == []
        assert await durably.jobs.red.get_run(foreign.id) is None
        assert await durably.jobs.green.get_run(foreign.id) == foreign

    async def test_runs_of_one_millisecond_keep_their_order_from_page_to_page(self, open_durably: OpenDurably) -> None:
        """R2: stable when created in one millisecond."""
        durably = await open_durably(red)
        runs = await durably.jobs.red.batch_trigger([BatchItem(n, labels={"l": "1"}) for n in range(20)])
        assert len({run.created_at for run in runs}) == 1
        newest_first = [run.id for run in reversed(runs)]

        filters: list[dict[str, Any]] = [{}, {"status": "pending"}, {"job_name": "red"}, {"labels": {"l": "1"}}]
        for each in filters:
            paged = [(await durably.get_runs(**each, limit=1, offset=n))[0].id for n in range(20)]
            assert paged == newest_first

    async def test_every_page_is_of_the_same_list_also_when_the_clock_went_back(
        self, open_durably: OpenDurably
    ) -> None:
        """R5: no run is passed over, none comes twice."""
        clock = FakeClock()
        durably = await open_durably(red, clock=clock)
        runs = []
        for minutes in (0, 5, -8, 2, -4):
            clock.set_wall_clock(clock.now() + timedelta(minutes=minutes))
            runs += await durably.jobs.red.batch_trigger([BatchItem(n, labels={"l": "1"}) for n in range(4)])

        filters: list[dict[str, Any]] = [{}, {"job_name": "red"}, {"labels": {"l": "1"}}]
        for each in filters:
            pages = [await durably.get_runs(**each, limit=3, offset=offset) for offset in range(0, 20, 3)]
            assert sorted(run.id for page in pages for run in page) == sorted(run.id for run in runs), each

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            ({"status": "done"}, "status"),
            ({"status": ["pending", "done"]}, "status"),
            ({"status": ""}, "status"),
            ({"status": 5}, "status"),
            ({"job_name": 5}, "job_name"),
            ({"job_name": [5]}, "job_name"),
            ({"job_name": "a\x00b"}, "job_name"),
            ({"job_name": ["red", "a\x00b"]}, "job_name"),
            ({"labels": {"a b": "c"}}, "labels"),
            ({"labels": {"a": 5}}, "labels.a"),
            ({"limit": -1}, "limit"),
            ({"limit": 1.5}, "limit"),
            ({"limit": True}, "limit"),
            ({"offset": -1}, "offset"),
            ({"offset": "2"}, "offset"),
        ],
        ids=repr,
    )
    async def test_a_bad_filter_is_refused_by_name(
        self, open_durably: OpenDurably, arguments: dict[str, Any], field: str
    ) -> None:
        """Bad input gets an error that names the thing."""
        durably = await open_durably(red)

        with pytest.raises(ValidationError) as refused:
            await durably.get_runs(**arguments)
        assert refused.value.field == field

    async def test_numbers_beyond_every_database_are_taken(self, open_durably: OpenDurably) -> None:
        """A page may be as large as one likes, and start behind the end."""
        durably = await open_durably(red)
        run = await durably.jobs.red.trigger(1)

        for each in ({}, {"job_name": "red"}, {"labels": {}}):
            assert [found.id for found in await durably.get_runs(limit=10**30, **each)] == [run.id]
            assert await durably.get_runs(limit=10**30, offset=10**30, **each) == []

    async def test_an_unknown_id_finds_nothing(self, open_durably: OpenDurably) -> None:
        """Reading what is not there gives None or nothing."""
        durably = await open_durably(red)

        assert await durably.get_run("nobody") is None
        assert await durably.get_steps("nobody") == []
        assert await durably.get_logs("nobody") == []

    async def test_names_that_json_writes_otherwise_are_found_as_they_are(self, open_durably: OpenDurably) -> None:
        """R5: in every combination of filters; each database takes a list of names in a form of its own."""
        name = 'jobé "a\\b"'
        odd = define_job(name=name, run=finish)
        durably = await open_durably(red)
        durably.register({"odd": odd})
        run = await durably.jobs.odd.trigger("ok", labels={"l": name})

        for job_name, labels, status in itertools.product(
            (name, [name, "red"]), (None, {"l": name}), (None, "pending")
        ):
            found = await durably.get_runs(job_name=job_name, labels=labels, status=status)
            assert [each.id for each in found] == [run.id], (job_name, labels, status)

    async def test_what_is_no_id_is_refused(self, open_durably: OpenDurably) -> None:
        """A run handed over instead of its id is named, on every call that takes an id."""
        durably = await open_durably(red)
        run: Any = await durably.jobs.red.trigger("ok")

        async def follow(run_id: str) -> None:
            async for _ in durably.subscribe(run_id):
                pass

        takes_id: list[Callable[[str], Awaitable[object]]] = [
            *(durably.get_run, durably.get_steps, durably.get_logs, durably.wait_for_run, follow),
            *(durably.retrigger, durably.cancel, durably.delete_run, durably.jobs.red.get_run),
        ]
        for call in takes_id:
            for wrong in (run, None, "a\x00b", "\ud800"):
                told = rf"pass its id, '{run.id}'" if wrong is run else r"must be text .*the id of a run"
                with pytest.raises(ValidationError, match=rf"Invalid (run_)?id.*{told}"):
                    await call(wrong)


def matches(run: Any, status: Any, job_name: Any, labels: Any) -> bool:
    """Tell, in the plainest way, whether a run passes the filters."""

    def one_of(value: Any, wanted: Any) -> bool:
        return not wanted or value in ([wanted] if isinstance(wanted, str) else wanted)

    return (
        one_of(run.status, status) and one_of(run.job_name, job_name) and (labels or {}).items() <= run.labels.items()
    )
