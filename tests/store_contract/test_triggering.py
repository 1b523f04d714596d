"""R1 to R6, R8: what a trigger stores, and what it refuses."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NotRequired

import pytest
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from durably import (
    BatchItem,
    ConflictError,
    Durably,
    RunFailedError,
    RunStatus,
    StepContext,
    ValidationError,
    define_job,
)
from tests.conftest import Events, OpenDurably


class Order(BaseModel):
    item: str
    count: int = 1


@define_job(name="echo")
async def echo(step: StepContext, input: Any) -> Any:
    return input


@define_job(name="order")
async def order(step: StepContext, input: Order) -> int:
    return input.count


async def stored(durably: Durably) -> list[Any]:
    return [run.input for run in await durably.get_runs()]


class TestWhatIsStored:
    async def test_a_triggered_run_is_pending_and_has_nothing_that_comes_later(self, open_durably: OpenDurably) -> None:
        """R1: a run begins as pending."""
        durably = await open_durably(echo)

        run = await durably.jobs.echo.trigger({"n": 1}, labels={"org": "a"})

        assert (run.status, run.disposition, run.job_name) == (RunStatus.PENDING, "created", "echo")
        assert (run.input, run.labels) == ({"n": 1}, {"org": "a"})
        assert (run.output, run.error, run.progress) == (None, None, None)
        assert (run.lease_owner, run.lease_expires_at, run.lease_generation) == (None, None, 0)
        assert (run.started_at, run.completed_at, run.created_at) == (None, None, run.updated_at)
        assert (run.current_step_index, run.completed_step_count) == (0, 0)
        assert (run.is_active, run.is_terminal) == (True, False)
        assert await durably.get_run(run.id) == await durably.jobs.echo.get_run(run.id)

    async def test_what_get_run_returns_is_what_trigger_returned(self, open_durably: OpenDurably) -> None:
        """R3: the returned run is the stored one."""
        durably = await open_durably(order)

        run = await durably.jobs.order.trigger(
            Order(item="tea"), idempotency_key="i", concurrency_key="c", labels={"a/b.c_d-9": "ü 'quoted' 🚂"}
        )

        found = await durably.get_run(run.id)
        assert found is not None
        for name in found.__dataclass_fields__:
            assert getattr(found, name) == getattr(run, name), name

    async def test_instants_are_aware_and_to_the_millisecond(self, open_durably: OpenDurably) -> None:
        """D1: timestamps are UTC with milliseconds."""
        durably = await open_durably(echo)

        before = datetime.now(UTC)
        run = await durably.jobs.echo.trigger(None)
        found = await durably.get_run(run.id)

        assert found is not None
        assert found.created_at.tzinfo is UTC
        assert found.created_at.microsecond % 1000 == 0
        assert abs((found.created_at - before).total_seconds()) < 60

    async def test_ids_sort_by_creation(self, open_durably: OpenDurably) -> None:
        """R2: sorting by id is sorting by creation."""
        durably = await open_durably(echo)

        ids = [(await durably.jobs.echo.trigger(n)).id for n in range(50)]

        assert ids == sorted(ids)
        assert len(set(ids)) == 50

    async def test_the_validated_value_is_stored(self, open_durably: OpenDurably) -> None:
        """R3: what is stored is the validated value, with its defaults and coercions."""
        durably = await open_durably(order)

        run = await durably.jobs.order.trigger({"item": "tea", "count": "3", "unknown": True})

        assert run.input == {"item": "tea", "count": 3}

    @pytest.mark.parametrize(
        "value",
        [
            None,
            True,
            0,
            -1.5,
            1e300,
            2**70,
            "",
            "ünïcödé \u0000 \u2028 🚂 \\ \" '",
            [],
            {},
            [1, [2, [3]]],
            {"a": {"b": [None, False, "c"]}, "": 0},
        ],
        ids=repr,
    )
    async def test_every_json_value_comes_back_as_it_was(self, open_durably: OpenDurably, value: Any) -> None:
        """R3: input and output of any JSON value survive the database."""
        durably = await open_durably(echo)

        run = await durably.jobs.echo.trigger(value)
        await durably.process_until_idle()

        found = await durably.get_run(run.id)
        assert found is not None
        assert (found.status, found.input, found.output) == (RunStatus.COMPLETED, value, value)
        assert type(found.output) is type(value)


class Shipment(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    ship_to: str
    sent_at: datetime
    parcel_weights: list[float] = Field(default_factory=list)


@dataclass
class Point:
    x: int
    y: int


class Options(TypedDict):
    depth: int
    note: NotRequired[str]


@define_job(name="ship")
async def ship(step: StepContext, input: Shipment) -> Shipment:
    return await step.run("copy", lambda: input)


@define_job(name="move")
async def move(step: StepContext, input: Point) -> Point:
    return Point(input.y, input.x)


@define_job(name="dig")
async def dig(step: StepContext, input: Options) -> list[int]:
    return [input["depth"]]


class TestTypes:
    async def test_a_model_with_aliases_reaches_the_job_and_comes_back(self, open_durably: OpenDurably) -> None:
        """R3: what was validated from aliases is stored so that it validates again."""
        durably = await open_durably(ship, start=True)
        given = {"shipTo": "Oslo", "sentAt": "2026-01-02T03:04:05Z", "parcelWeights": [1.5]}

        result = await durably.jobs.ship.trigger_and_wait(given)

        assert result.output == Shipment(
            ship_to="Oslo", sent_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), parcel_weights=[1.5]
        )
        run = await durably.get_run(result.id)
        assert run is not None
        assert run.input == given

    async def test_a_dataclass_and_a_typed_dict_are_input_types(self, open_durably: OpenDurably) -> None:
        """R3: any type that Pydantic can validate is an input type."""
        durably = await open_durably(move, dig, start=True)

        assert (await durably.jobs.move.trigger_and_wait(Point(1, 2))).output == Point(2, 1)
        assert (await durably.jobs.move.trigger_and_wait({"x": 3, "y": "4"})).output == Point(4, 3)
        assert (await durably.jobs.dig.trigger_and_wait({"depth": 7})).output == [7]

    async def test_an_output_that_does_not_match_fails_the_run(self, open_durably: OpenDurably) -> None:
        """R4: a mismatch fails the run with a message that says what was expected."""

        @define_job(name="liar", output=int)
        async def liar(step: StepContext, input: None) -> Any:
            return {"not": "a number"}

        durably = await open_durably(liar, start=True)

        with pytest.raises(RunFailedError, match=r"output.*valid integer") as failed:
            await durably.jobs.liar.trigger_and_wait(None)
        assert failed.value.run.output is None

    @pytest.mark.parametrize(
        ("output", "place"),
        [({"a": [1, math.nan]}, r"output\.a\[1\]"), ({"s": {1}}, r"output\.s"), (object(), "output")],
        ids=["nan", "set", "object"],
    )
    async def test_an_output_that_json_cannot_carry_fails_the_run(
        self, open_durably: OpenDurably, output: Any, place: str
    ) -> None:
        """R3, R4: an unchecked output still has to be JSON."""

        @define_job(name="odd")
        async def odd(step: StepContext, input: None) -> Any:
            return output

        durably = await open_durably(odd, start=True)

        with pytest.raises(RunFailedError, match=place):
            await durably.jobs.odd.trigger_and_wait(None)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("value", "field"),
        [
            ({"count": 1}, "input.item"),
            ({"item": "tea", "count": "many"}, "input.count"),
            ("tea", "input"),
            (None, "input"),
        ],
        ids=["missing", "wrong type", "no object", "none"],
    )
    async def test_an_invalid_input_is_refused_by_place(
        self, open_durably: OpenDurably, value: Any, field: str
    ) -> None:
        """R3: input is validated before anything is stored."""
        durably = await open_durably(order)

        with pytest.raises(ValidationError) as refused:
            await durably.jobs.order.trigger(value)

        assert refused.value.field == field
        assert field in str(refused.value)
        assert await stored(durably) == []

    @pytest.mark.parametrize(
        ("value", "field"),
        [
            ({"rows": [{"price": math.nan}]}, "input.rows[0].price"),
            ([math.inf], "input[0]"),
            ({"a": {"b": {1, 2}}}, "input.a.b"),
            ({"blob": b"bytes"}, "input.blob"),
            ({"o": [object()]}, "input.o[0]"),
            ({"a": [{1: "one"}]}, "input.a[0]"),
            ({"text": "\ud800"}, "input"),
        ],
        ids=["nan", "infinity", "set", "bytes", "object", "key", "surrogate"],
    )
    async def test_what_json_cannot_carry_is_refused_by_place(
        self, open_durably: OpenDurably, value: Any, field: str
    ) -> None:
        """R3: NaN, Infinity, a set, bytes, an object, a key that is not text raise `ValidationError` with the place."""
        durably = await open_durably(echo)

        with pytest.raises(ValidationError) as refused:
            await durably.jobs.echo.trigger(value)

        assert refused.value.field == field
        assert await stored(durably) == []

    async def test_nesting_without_end_is_refused(self, open_durably: OpenDurably) -> None:
        """R3: what could not be read again is not stored."""
        durably = await open_durably(echo)
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        endless: list[Any] = []
        endless.append(endless)

        for value in (deep, {"a": deep}, endless):
            with pytest.raises(ValidationError, match="input"):
                await durably.jobs.echo.trigger(value)
        assert await stored(durably) == []

    @pytest.mark.parametrize(
        ("options", "field"),
        [
            ({"labels": {"a b": "c"}}, "labels"),
            ({"labels": {"": "c"}}, "labels"),
            ({"labels": {"ü": "c"}}, "labels"),
            ({"labels": {"a\n": "c"}}, "labels"),
            ({"labels": {"a": 1}}, "labels.a"),
            ({"labels": {"a": None}}, "labels.a"),
            ({"labels": {"a": "\x00"}}, "labels.a"),
            ({"labels": ["a"]}, "labels"),
            ({"idempotency_key": ""}, "idempotency_key"),
            ({"idempotency_key": 7}, "idempotency_key"),
            ({"concurrency_key": ""}, "concurrency_key"),
            ({"concurrency_key": "\ud800"}, "concurrency_key"),
            ({"coalesce": "skip"}, "coalesce"),
            ({"coalesce": "queue", "concurrency_key": "k"}, "coalesce"),
            ({"coalesce": "", "concurrency_key": "k"}, "coalesce"),
        ],
        ids=repr,
    )
    async def test_an_invalid_option_is_refused_by_name(
        self, open_durably: OpenDurably, options: dict[str, Any], field: str
    ) -> None:
        """R5, R6, R7: bad labels, keys and coalesce values are `ValidationError`s, and `ValueError`s."""
        durably = await open_durably(echo)

        with pytest.raises(ValidationError) as refused:
            await durably.jobs.echo.trigger(1, **options)

        assert refused.value.field == field
        assert isinstance(refused.value, ValueError)
        assert await stored(durably) == []


class Tenant(TypedDict):
    org: str
    plan: NotRequired[str]


class TestTypedLabels:
    async def test_labels_are_validated_into_the_type_of_the_instance(self, open_durably: OpenDurably) -> None:
        """R5: with a labels type, labels are validated on trigger."""
        durably = await open_durably(echo, labels=Tenant)

        run = await durably.jobs.echo.trigger(1, labels={"org": "a"})

        assert run.labels == {"org": "a"}
        with pytest.raises(ValidationError, match=r"labels\.org"):
            await durably.jobs.echo.trigger(1, labels={"plan": "free"})
        with pytest.raises(ValidationError, match=r"labels\.org"):
            await durably.jobs.echo.trigger(1)
        assert len(await durably.get_runs()) == 1

    async def test_labels_may_be_a_model(self, open_durably: OpenDurably) -> None:
        """R5: what is None is no label."""

        class Tag(BaseModel):
            org: str
            team: str | None = None

        durably = await open_durably(echo, labels=Tag)

        assert (await durably.jobs.echo.trigger(1, labels={"org": "a"})).labels == {"org": "a"}

    async def test_what_a_label_model_fills_in_is_stored(self, open_durably: OpenDurably) -> None:
        """R5: defaults, enumerations and aliases; what is stored is the validated value."""

        class Stage(Enum):
            DEV = "dev"
            PROD = "prod"

        class Tag(BaseModel):
            org: str = Field(alias="org/id")
            stage: Stage = Stage.DEV

        durably = await open_durably(echo, labels=Tag)

        run = await durably.jobs.echo.trigger(1, labels={"org/id": "a"})

        assert run.labels == {"org/id": "a", "stage": "dev"}
        assert [found.id for found in await durably.get_runs(labels={"stage": "dev"})] == [run.id]

    async def test_labels_may_be_given_as_a_model(self, open_durably: OpenDurably) -> None:
        """R5: to trigger and to find, whether or not the instance has a type for them."""

        class Tag(BaseModel):
            org: str = Field(alias="org/id")
            team: str | None = None

        tag = Tag.model_validate({"org/id": "a"})
        for labels in (None, Tag):
            durably = await open_durably(echo, labels=labels)

            run = await durably.jobs.echo.trigger(1, labels=tag)

            assert run.labels == {"org/id": "a"}
            assert run.id in [found.id for found in await durably.get_runs(labels=tag)]
            assert await durably.jobs.echo.get_runs(labels=Tag.model_validate({"org/id": "b"})) == []


class TestIdempotencyKeys:
    async def test_a_second_trigger_returns_the_first_run_untouched(self, open_durably: OpenDurably) -> None:
        """R6: disposition `idempotent`, no event, input and labels of the first."""
        durably = await open_durably(echo)
        events = Events(durably)

        first = await durably.jobs.echo.trigger("first", idempotency_key="k", labels={"n": "1"})
        second = await durably.jobs.echo.trigger("second", idempotency_key="k", labels={"n": "2"})

        assert (second.id, second.disposition) == (first.id, "idempotent")
        assert (second.input, second.labels) == ("first", {"n": "1"})
        assert await stored(durably) == ["first"]
        assert [event.run_id for event in events.of("run:trigger", "run:coalesced")] == [first.id]

    async def test_the_first_run_answers_before_label_keys_are_looked_at(self, open_durably: OpenDurably) -> None:
        """R6: a key of its own that has no run yet gets the error."""
        durably = await open_durably(echo)
        first = await durably.jobs.echo.trigger("first", idempotency_key="k")

        second = await durably.jobs.echo.trigger("second", idempotency_key="k", labels={"bad key": "x"})
        with pytest.raises(ValidationError, match="Invalid label key"):
            await durably.jobs.echo.trigger("third", idempotency_key="fresh", labels={"bad key": "x"})

        assert (second.id, second.disposition, second.input) == (first.id, "idempotent", "first")
        assert await stored(durably) == ["first"]

    async def test_the_key_holds_as_long_as_the_run_exists(self, open_durably: OpenDurably) -> None:
        """R6: a finished run still answers for its key, a deleted one no longer."""
        durably = await open_durably(echo)
        first = await durably.jobs.echo.trigger(1, idempotency_key="k")
        await durably.process_until_idle()

        finished = await durably.jobs.echo.trigger(2, idempotency_key="k")
        await durably.delete_run(first.id)
        fresh = await durably.jobs.echo.trigger(3, idempotency_key="k")

        assert (finished.id, finished.status, finished.output) == (first.id, RunStatus.COMPLETED, 1)
        assert (fresh.disposition, fresh.input) == ("created", 3)
        assert fresh.id != first.id

    async def test_the_key_is_per_job(self, open_durably: OpenDurably) -> None:
        """R6: unique per job."""
        durably = await open_durably(echo, order)

        one = await durably.jobs.echo.trigger({"item": "x"}, idempotency_key="k")
        other = await durably.jobs.order.trigger({"item": "x"}, idempotency_key="k")

        assert one.id != other.id
        assert other.disposition == "created"

    async def test_it_takes_priority_over_the_concurrency_key(self, open_durably: OpenDurably) -> None:
        """R6: neither a conflict nor a coalesced run where the idempotency key has its own."""
        durably = await open_durably(echo)
        mine = await durably.jobs.echo.trigger(1, idempotency_key="mine", concurrency_key="a")
        await durably.jobs.echo.trigger(2, concurrency_key="b")

        conflicting = await durably.jobs.echo.trigger(3, idempotency_key="mine", concurrency_key="b")
        coalescing = await durably.jobs.echo.trigger(4, idempotency_key="mine", concurrency_key="b", coalesce="skip")

        assert (conflicting.id, conflicting.disposition) == (mine.id, "idempotent")
        assert (coalescing.id, coalescing.disposition) == (mine.id, "idempotent")

    async def test_twenty_at_once_make_one_run(self, open_durably: OpenDurably) -> None:
        """R6: no window between look and write."""
        durably = await open_durably(echo)

        runs = await asyncio.gather(*[durably.jobs.echo.trigger(n, idempotency_key="k") for n in range(20)])

        assert len({run.id for run in runs}) == 1
        assert sorted(run.disposition for run in runs) == ["created"] + ["idempotent"] * 19

    @pytest.mark.two_processes
    async def test_two_processes_at_once_make_one_run(self, open_durably: OpenDurably) -> None:
        """R6: the same under a race of two processes."""
        one, other = await open_durably(echo), await open_durably(echo)

        runs = await asyncio.gather(
            *[durably.jobs.echo.trigger(n, idempotency_key=f"k{n}") for n in range(20) for durably in (one, other)]
        )

        assert len({run.id for run in runs}) == 20
        assert sorted(run.disposition for run in runs) == ["created"] * 20 + ["idempotent"] * 20


class TestBatches:
    async def test_a_batch_takes_inputs_and_items_with_options(self, open_durably: OpenDurably) -> None:
        """R8: results in the order of the items."""
        durably = await open_durably(order)

        runs = await durably.jobs.order.batch_trigger(
            [
                {"item": "a"},
                Order(item="b", count=2),
                BatchItem({"item": "c"}, labels={"l": "1"}, idempotency_key="i", concurrency_key="k"),
                BatchItem({"item": "d"}, idempotency_key="i"),
                BatchItem({"item": "e"}, concurrency_key="k", coalesce="skip"),
            ]
        )

        assert [run.input["item"] for run in runs] == ["a", "b", "c", "c", "c"]
        assert [run.disposition for run in runs] == ["created", "created", "created", "idempotent", "coalesced"]
        assert (runs[2].labels, runs[2].idempotency_key, runs[2].concurrency_key) == ({"l": "1"}, "i", "k")
        assert len(await durably.get_runs()) == 3

    @pytest.mark.parametrize("items", ["abc", b"abc", {"item": "a"}, 5], ids=repr)
    async def test_what_is_no_sequence_of_inputs_is_refused(self, open_durably: OpenDurably, items: Any) -> None:
        """R8: a text is not a batch of its letters."""
        durably = await open_durably(echo)

        with pytest.raises(ValidationError, match="Invalid items"):
            await durably.jobs.echo.batch_trigger(items)
        assert await durably.get_runs() == []

    async def test_an_empty_batch_makes_nothing(self, open_durably: OpenDurably) -> None:
        """R8: nothing asked, nothing done."""
        durably = await open_durably(order)

        assert await durably.jobs.order.batch_trigger([]) == []

    async def test_every_item_is_validated_first(self, open_durably: OpenDurably) -> None:
        """R8: one invalid item and nothing is created."""
        durably = await open_durably(order)

        with pytest.raises(ValidationError, match=r"input\.count") as refused:
            await durably.jobs.order.batch_trigger([{"item": "a"}, {"item": "b", "count": "x"}])
        assert refused.value.field == "items[1].input.count"
        with pytest.raises(ValidationError, match=r"^items\[0\]: .*input\.count") as refused:
            await durably.jobs.order.batch_trigger([{"item": "b", "count": "x"}])
        assert refused.value.field == "items[0].input.count"

        assert await stored(durably) == []

    async def test_one_conflict_and_nothing_is_created(self, open_durably: OpenDurably) -> None:
        """R8: the batch is atomic, its events and its labels included."""
        durably = await open_durably(echo)
        events = Events(durably)
        taken = await durably.jobs.echo.trigger("first", concurrency_key="k")

        with pytest.raises(ConflictError) as refused:
            await durably.jobs.echo.batch_trigger(
                ["a", BatchItem("b", labels={"l": "1"}), BatchItem("c", concurrency_key="k")]
            )

        assert refused.value.run_id == taken.id
        assert await stored(durably) == ["first"]
        assert await durably.get_runs(labels={"l": "1"}) == []
        assert [event.run_id for event in events.of("run:trigger")] == [taken.id]

    async def test_a_conflict_within_the_batch_undoes_it(self, open_durably: OpenDurably) -> None:
        """R8: items of one batch conflict with each other like any two triggers."""
        durably = await open_durably(echo)

        with pytest.raises(ConflictError):
            await durably.jobs.echo.batch_trigger(
                [BatchItem(1, concurrency_key="k"), BatchItem(2, concurrency_key="k")]
            )

        assert await stored(durably) == []

    async def test_a_batch_that_fails_takes_nobody_with_it(self, open_durably: OpenDurably) -> None:
        """R8, D3: writers that share a commit with a refused batch are not undone with it."""
        durably = await open_durably(echo)
        await durably.jobs.echo.trigger("taken", concurrency_key="k")

        good, bad, also_good = await asyncio.gather(
            durably.jobs.echo.batch_trigger([1, 2]),
            durably.jobs.echo.batch_trigger([3, BatchItem(4, concurrency_key="k")]),
            durably.jobs.echo.trigger(5),
            return_exceptions=True,
        )

        assert isinstance(bad, ConflictError)
        assert isinstance(good, list)
        assert not isinstance(also_good, BaseException)
        assert sorted(await stored(durably), key=str) == [1, 2, 5, "taken"]

    async def test_a_thousand_runs_in_one_batch_keep_their_order(self, open_durably: OpenDurably) -> None:
        """R2, R8: a big batch is stored whole and in order."""
        durably = await open_durably(echo)

        runs = await durably.jobs.echo.batch_trigger(list(range(1000)))

        assert [run.input for run in await durably.get_runs()] == list(reversed(range(1000)))
        assert [run.id for run in runs] == sorted(run.id for run in runs)
