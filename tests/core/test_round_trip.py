"""R3, S2: a type must read back what it writes; one that cannot is refused where it is first used."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Generator, Iterable, Sequence
from dataclasses import InitVar, field
from dataclasses import dataclass as standard_dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    computed_field,
)
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from durably import StepContext, ValidationError, create_durably, define_job
from durably.core.json_values import Codec
from durably.testing import FakeStep, crash_everywhere, in_memory, run_until_idle


class WritesElse(BaseModel):
    count: int = Field(serialization_alias="countTotal", default=0)


class ReadsElse(BaseModel):
    count: int = Field(validation_alias="n", default=0)


class ReadsWithin(BaseModel):
    count: int = Field(validation_alias=AliasPath("counts", 0))


class ReadsByName(BaseModel):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=False)
    count: int = Field(alias="n")


@dataclass
class Point:
    x: int = Field(validation_alias="a", serialization_alias="b")


class Box(TypedDict):
    width: Annotated[int, Field(validation_alias="w")]


class Tree(BaseModel):
    children: list[Tree] = []
    leaf: ReadsElse | None = None


@pytest.mark.parametrize(
    ("annotation", "field", "stored", "read"),
    [
        (WritesElse, "WritesElse.count", "countTotal", "'count'"),
        (ReadsElse, "ReadsElse.count", "count", "'n'"),
        (ReadsWithin, "ReadsWithin.count", "count", "'counts.0'"),
        (ReadsByName, "ReadsByName.count", "n", "'count'"),
        (Point, "Point.x", "b", "'a'"),
        (Box, "Box.width", "width", "'w'"),
        (dict[str, list[WritesElse] | None], "WritesElse.count", "countTotal", "'count'"),
        (Tree, "ReadsElse.count", "count", "'n'"),
    ],
    ids=["writes", "reads", "path", "by-name", "dataclass", "typed-dict", "inside", "recursive"],
)
def test_a_field_that_would_not_be_found_again_is_refused(annotation: Any, field: str, stored: str, read: str) -> None:
    """R3: as input, as output and as labels, naming the field and both names."""

    async def work(step: StepContext, input: Any) -> Any: ...

    for role in ("input", "output"):
        with pytest.raises(ValidationError, match=f"Job 'job': the {role} type cannot be stored: {field}") as refused:
            define_job(name="job", input=annotation if role == "input" else Any, output=annotation, run=work)
        assert f"stored as {stored!r}" in str(refused.value)
        assert f"read as {read}" in str(refused.value)
    with pytest.raises(ValidationError, match=field):
        create_durably(database="sqlite://:memory:", labels=annotation)


class Batch(BaseModel):
    rows: dict[str, Iterable[int]]


@pytest.mark.parametrize(
    ("annotation", "place"),
    [
        (Iterable[int], "it"),
        (list[Iterable[int]], "it"),
        (Generator[int, None, None], "it"),
        (Batch | None, r"Batch\.rows"),
    ],
    ids=["iterable", "inside", "generator", "field"],
)
async def test_a_type_that_can_be_gone_through_only_once_is_refused(annotation: Any, place: str) -> None:
    """R3, S2: nothing would be left of it; as input, as output and as the result of a step."""

    async def work(step: StepContext, input: Any) -> Any: ...

    message = rf"cannot be stored: {place} has an iterator.*use list\[\.\.\.\]"
    with pytest.raises(ValidationError, match=f"Job 'job': the input type {message}"):
        define_job(name="job", input=annotation, run=work)
    with pytest.raises(ValidationError, match=f"Job 'job': the output type {message}"):
        define_job(name="job", output=annotation, run=work)
    with pytest.raises(ValidationError, match=f"result of step 'rows' {message}"):
        await FakeStep().run("rows", lambda: [1, 2], returns=annotation)


async def test_a_step_that_yields_is_refused() -> None:
    """S2: with an annotation by its type, without one by its result."""

    def annotated() -> Iterable[int]:
        yield 1

    def plain():  # type: ignore[no-untyped-def] # most are written so
        yield 1

    with pytest.raises(ValidationError, match=r"result of step 'rows' cannot be stored: it has an iterator"):
        await FakeStep().run("rows", annotated)
    with pytest.raises(ValidationError, match=r"result of step 'rows': JSON cannot carry an iterator.*use a list"):
        await FakeStep().run("rows", plain)
    with pytest.raises(ValidationError, match=r"result of step 'rows'\.squares: JSON cannot carry an iterator"):
        await FakeStep().run("rows", lambda: {"squares": (n * n for n in range(3))})


async def test_a_coroutine_as_a_result_is_a_missing_await() -> None:
    """S2: and Python need not warn of it a second time."""

    async def fetch() -> int:
        return 1

    with pytest.raises(ValidationError, match=r"result of step 'rows'\.one: .*coroutine; is an `await` missing\?"):
        await FakeStep().run("rows", lambda: {"one": fetch()})


class Size(Enum):
    SMALL = (1, 2)


class Holiday(Enum):
    NEW_YEAR = date(2026, 1, 1)


class Door(Enum):
    OPEN = "open"


@pytest.mark.parametrize(
    ("annotation", "value", "stored"),
    [
        (Size, Size.SMALL, "[1,2]"),
        (list[Holiday], [Holiday.NEW_YEAR], '["2026-01-01"]'),
        (Literal[Door.OPEN], Door.OPEN, '"open"'),
        (dict[Size, int], {Size.SMALL: 1}, '{"1,2":1}'),
    ],
    ids=["enum-of-tuples", "enum-of-dates", "literal", "key"],
)
async def test_a_value_that_its_type_does_not_read_again_is_refused(annotation: Any, value: Any, stored: str) -> None:
    """R3, R4, S3: at once, as input, as the result of a step and as output; not when it is read."""

    async def give(step: StepContext, input: Any) -> Any:
        return value

    takes = define_job(name="takes", input=annotation, run=give)
    gives = define_job(name="gives", output=annotation, run=give)
    refused = f"would be stored as {re.escape(stored)}, which its type does not read again: Invalid"
    async with in_memory({"takes": takes, "gives": gives}) as durably:
        with pytest.raises(ValidationError, match=f"^input {refused} input"):
            await durably.jobs.takes.trigger(value)
        assert await durably.get_runs() == []
        assert re.match(f"output {refused} output", (await run_until_idle(durably, gives, None)).error or "")
    with pytest.raises(ValidationError, match=f"^result of step 'pick' {refused} result"):
        await FakeStep().run("pick", lambda: value, returns=annotation)


class Animal(BaseModel):
    name: str


class Dog(Animal):
    tail: int = 1


@standard_dataclass
class Shape:
    sides: int


@standard_dataclass
class Square(Shape):
    width: int = 1


class Stamp(datetime): ...


class Bought(BaseModel):
    kind: Literal["bought"]


class Sold(BaseModel):
    kind: Literal["sold"]


class SoldAgain(Sold):
    times: int = 2


class Clipped(BaseModel):
    model_config = ConfigDict(extra="allow")

    at: Annotated[datetime | None, PlainSerializer(lambda at: None)] = None


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (datetime | str, NOW),
        (Animal, Dog(name="Rex")),
        (list[Animal], [Dog(name="Rex")]),
        (Shape, Square(sides=4)),
        (datetime, Stamp(2026, 1, 1, tzinfo=UTC)),
        (Clipped, Clipped(at=NOW)),
        (Clipped, Clipped(sent=NOW)),  # type: ignore[call-arg] # extra fields are allowed
        (Sequence[int], (1, 2)),
        (Annotated[int, AfterValidator(lambda n: 10 * n)], 1),
        (Annotated[Bought | Sold, Field(discriminator="kind")], SoldAgain(kind="sold")),
    ],
    ids=[
        *("union", "subclass", "inside", "dataclass", "scalar", "serializer", "extra", "sequence", "validator"),
        "tagged-union",
    ],
)
async def test_a_step_gives_the_same_to_every_execution(annotation: Any, value: Any) -> None:
    """S2: what it gives the first time is what its type reads from the stored result."""

    @define_job(name="job")
    async def job(step: StepContext, input: None) -> str:
        result = await step.run("step", lambda: value, returns=annotation)
        return f"{result!r} of {type(result).__qualname__}"

    assert (await crash_everywhere(job, None, moments=["after-commit"])).differences == []


class Login(BaseModel):
    name: str
    password: str = Field(default="", exclude=True)


@standard_dataclass
class Session:
    logins: list[Login]


async def test_a_field_that_would_not_be_stored_is_refused() -> None:
    """R3, S2: the job would see the default in place of what was given."""

    async def work(step: StepContext, input: Any) -> Any: ...

    message = r"cannot be stored: Login\.password is excluded from what is stored"
    with pytest.raises(ValidationError, match=f"Job 'job': the input type {message}") as refused:
        define_job(name="job", input=Login, run=work)
    with pytest.raises(ValidationError, match=f"Job 'job': the output type {message}"):
        define_job(name="job", output=Session, run=work)
    with pytest.raises(ValidationError, match=f"result of step 'login' {message}"):
        await FakeStep().run("login", lambda: Login(name="ada", password="secret"), returns=Login | None)
    assert "leave exclude=True out" in str(refused.value)


class Within(BaseModel):
    type: str
    metadata: ReadsElse | None = None


class Behind(BaseModel):
    type: str
    default: ReadsElse | None = None


class Notice(BaseModel):
    """Its fields are called as parts of Pydantic's own descriptions are."""

    type: str
    metadata: dict[str, str] = {"type": "model-field"}
    computed_fields: int = 0


def test_fields_may_be_called_anything() -> None:
    """R3: and what is said of them is looked at, whatever they are called."""
    codec = Codec(Notice)
    value = codec.validate({"type": "a"}, "input")
    assert codec.decode(codec.encode(value, "input"), "input") == value

    for misread in (Within, Behind):
        with pytest.raises(ValidationError, match=r"ReadsElse\.count would be stored"):
            Codec(misread)


class Chosen(BaseModel):
    model_config = ConfigDict(alias_generator=str.upper)

    one: int
    two: int = Field(alias="zwei")
    three: int = Field(validation_alias=AliasChoices("tres", "drei"), serialization_alias="drei")


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    five: int = Field(validation_alias="cinq")


@pytest.mark.parametrize("value", [Chosen(ONE=1, zwei=2, tres=3), ByName(cinq=5)], ids=["aliases", "by-name"])
def test_aliases_that_are_read_again_are_fine(value: Any) -> None:
    """R3: one alias for both, one of several, a generator, the name itself."""
    codec = Codec(type(value))

    assert codec.decode(codec.encode(value, "value"), "value") == value


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    at: datetime
    price: Decimal
    key: UUID
    pair: tuple[int, str]
    by_number: dict[int, timedelta]


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    net: int

    @computed_field
    def gross(self) -> int:
        return 2 * self.net


class Nested(BaseModel):
    rows: Json[list[int]]


SURVIVORS = [
    Strict(
        at=datetime(2026, 1, 1, tzinfo=UTC),
        price=Decimal("1.50"),
        key=UUID(int=1),
        pair=(1, "a"),
        by_number={1: timedelta(seconds=3)},
    ),
    Computed(net=1),
    Nested(rows="[1, 2]"),  # type: ignore[arg-type] # what Json takes
]


@pytest.mark.parametrize("value", SURVIVORS, ids=lambda value: type(value).__name__)
async def test_a_model_that_is_particular_about_what_it_reads_survives(value: Any) -> None:
    """R3, S2: as input, as the result of a step after a resume, as output."""
    first = True
    seen: list[Any] = []

    async def work(step: StepContext, input: Any) -> Any:
        nonlocal first
        seen.append(input)
        seen.append(await step.run("step", lambda: value, returns=type(value)))
        if first:
            first = False
            resumed.set()
            await asyncio.Event().wait()
        return value

    resumed = asyncio.Event()
    job = define_job(name="job", input=type(value), output=type(value), run=work)
    async with create_durably(database="sqlite://:memory:", jobs={"job": job}) as durably:
        run = await durably.jobs.job.trigger(value)
        await resumed.wait()
        await durably.stop(timeout=0)
        await durably.start()
        await durably.wait_for_run(run.id, timeout=30)
        found = await durably.jobs.job.get_run(run.id)

    assert found is not None
    assert [*seen, found.output] == [value] * 5


def test_a_strict_type_takes_from_json_what_json_has_for_it() -> None:
    """R3: the input of a trigger over HTTP is such; what is wrong in JSON too is refused."""
    codec = Codec(Strict)
    stored = codec.encode(SURVIVORS[0], "input")

    assert codec.read(json.loads(stored), "input") == SURVIVORS[0]
    with pytest.raises(ValidationError, match=r"input\.pair\[0\]"):
        codec.read({**json.loads(stored), "pair": ["1", "a"]}, "input")


@standard_dataclass
class Tally:
    name: str
    total: int = field(init=False, default=0)


@standard_dataclass
class Scaled:
    size: int
    factor: InitVar[int] = 3
    area: int = field(init=False, default=0)

    def __post_init__(self, factor: int) -> None:
        self.area = self.size * factor


class Sparse(BaseModel):
    limit: int = Field(default=5, exclude_if=lambda limit: limit == 0)


def counted() -> Tally:
    tally = Tally("x")
    tally.total = 42
    return tally


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (counted(), r'stored as {"name":"x","total":42}, which its type reads as {"name":"x","total":0}'),
        (Scaled(2, factor=10), r"init=False"),
        (Sparse(limit=0), r'stored as {}, which its type reads as {"limit":5}'),
    ],
    ids=["a field that is not read", "a value that is not kept", "a field that is left out"],
)
def test_a_value_that_would_come_back_as_another_is_refused(value: object, said: str) -> None:
    """S2, R3: the first execution would see one and a resumed one the other, or both what nobody gave."""
    with pytest.raises(ValidationError, match=re.escape(said)):
        Codec(type(value)).round_trip(value, "result")


@pytest.mark.parametrize("value", [Tally("x"), Scaled(2), Sparse(limit=7)], ids=lambda value: type(value).__name__)
def test_what_is_made_again_from_the_rest_comes_back(value: object) -> None:
    """S2: a field that a class computes need not be read."""
    codec = Codec(type(value))
    first, stored = codec.round_trip(value, "result")

    assert first == codec.decode(stored, "result") == value
