"""define_job: which functions it takes, and where it finds their types."""

from __future__ import annotations

import functools
import sys
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from durably import StepContext, SyncStepContext, ValidationError, create_durably, define_job
from durably.core.jobs import JobDefinition
from durably.testing import FakeStep, in_memory, run_until_idle

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypes


itself = "itself"


class Order(BaseModel):
    item: str


@dataclass
class Receipt:
    total: int


class TestTypes:
    def test_they_default_to_the_annotations(self) -> None:
        """Annotations as text are resolved where the job is defined."""

        @define_job(name="job")
        async def job(step: StepContext, input: Order) -> Receipt: ...

        assert job.input.annotation is Order
        assert job.output is not None
        assert job.output.annotation is Receipt

    def test_types_local_to_a_function_are_found(self) -> None:
        """Types defined inside a function are visible only in the frame that defines the job."""

        class Local(BaseModel):
            n: int

        @define_job(name="job")
        async def job(step: StepContext, input: list[Local]) -> Local | None: ...

        assert job.input.validate([{"n": 1}], "input") == [Local(n=1)]
        assert job.output is not None

    def test_explicit_types_win(self) -> None:
        """`input` and `output` need no annotation, and override one."""

        async def function(step: Any, input: str) -> str:
            return input

        job = define_job(name="job", input=int, output=float, run=function)

        assert job.input.annotation is int
        assert job.output is not None
        assert job.output.annotation is float

    @pytest.mark.parametrize("annotation", [None, Any], ids=repr)
    def test_an_output_of_none_or_anything_is_unchecked(self, annotation: Any) -> None:
        """An output annotation of `None`, or none at all, means any JSON value is stored unchecked."""

        async def function(step: Any, input: Any): ...

        function.__annotations__["return"] = annotation
        assert define_job(name="job", run=function).output is None
        del function.__annotations__["return"]
        assert define_job(name="job", run=function).output is None

    def test_annotations_quoted_twice_are_resolved(self) -> None:
        """Quotes beside `from __future__ import annotations` are a habit of many."""

        @define_job(name="job")
        async def job(step: StepContext, input: Order) -> Receipt: ...

        assert job.input.annotation is Order
        assert job.output is not None
        assert job.output.annotation is Receipt

    def test_names_quoted_within_a_given_type_are_those_of_the_caller(self) -> None:
        """A promise: also one that the library itself has a name of."""

        @dataclass
        class Mode:
            name: str

        def job(step: StepContext, input: Any) -> Any:
            return input

        definition = define_job(name="job", input=list["Mode"], output=list["Mode"], run=job)
        assert definition.input.validate([Mode("fast")], "input") == [Mode("fast")]
        assert definition.output is not None
        assert definition.output.decode('[{"name":"slow"}]', "output") == [Mode("slow")]

    def test_names_quoted_within_an_annotation_are_resolved(self) -> None:
        """As they are written where a class comes later in its module."""

        @define_job(name="job")
        async def job(step: StepContext, input: list["Order"]) -> "dict[str, Receipt | None]": ...  # noqa: UP037

        assert job.input.annotation == list[Order]
        assert job.output is not None
        assert job.output.annotation == dict[str, Receipt | None]

    def test_a_type_that_exists_for_checkers_only_is_refused_by_name(self) -> None:
        """A name that does not exist when the program runs."""

        async def function(step: Any, input: OnlyForTypes) -> None: ...

        with pytest.raises(ValidationError, match="OnlyForTypes"):
            define_job(name="job", run=function)

    def test_a_type_that_pydantic_cannot_validate_is_refused(self) -> None:
        """With the name of the job and what to do."""

        class Plain: ...

        async def takes(step: Any, input: Plain) -> None: ...

        async def gives(step: Any, input: int) -> Plain: ...

        with pytest.raises(ValidationError, match=r"Job 'job'.*input type.*Plain"):
            define_job(name="job", run=takes)
        with pytest.raises(ValidationError, match=r"Job 'job'.*output type.*Plain.*leave it out"):
            define_job(name="job", run=gives)

    @pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python's own TypedDict says enough of its fields")
    @pytest.mark.parametrize("use", ["input", "output", "labels"])
    def test_a_typed_dict_of_an_old_python_is_refused_with_the_one_to_use(self, use: str) -> None:
        """R3, R4, R5: where it stands in the program, not when the first run comes."""

        class Tags(typing.TypedDict):
            org: str

        def job(step: Any, input: Any) -> Any: ...

        def define() -> object:
            if use == "labels":
                return create_durably(database="sqlite://:memory:", labels=Tags)
            return define_job(name="job", run=job, **{use: Tags})  # type: ignore[call-overload]

        with pytest.raises(ValidationError, match=r"Please use `typing_extensions\.TypedDict`.*Python < 3\.12") as told:
            define()
        assert "http" not in str(told.value)


class TestFunctions:
    def test_async_and_plain_functions_are_told_apart(self) -> None:
        """A plain job runs in a thread."""

        async def coroutine(step: Any, input: int) -> int:
            return input

        def plain(step: Any, input: int) -> int:
            return input

        class AsyncObject:
            async def __call__(self, step: Any, input: int) -> int:
                return input

        assert define_job(name="job", run=coroutine).is_async
        assert not define_job(name="job", run=plain).is_async
        assert define_job(name="job", run=AsyncObject()).is_async
        assert define_job(name="job", run=functools.partial(coroutine)).is_async

    def test_partials_methods_and_wrapped_functions_are_taken(self) -> None:
        """Whatever can be called with (step, input)."""

        async def function(step: Any, input: Order, extra: int = 0) -> Receipt:
            return Receipt(extra)

        @functools.wraps(function)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        class Service:
            async def method(self, step: Any, input: Order) -> Receipt:
                return Receipt(0)

        for each in (functools.partial(function, extra=5), wrapped, Service().method, function):
            job = define_job(name="job", run=each)
            assert job.input.annotation is Order
            assert job.output is not None

    def test_an_object_has_the_types_of_its_call(self) -> None:
        """Types of its module and of the function that defines the job."""

        class Local(BaseModel):
            n: int

        class Sell:
            async def __call__(self, step: Any, input: Order) -> Local: ...

        for each in (Sell(), functools.partial(Sell())):
            job = define_job(name="job", run=each)
            assert job.input.annotation is Order
            assert job.output is not None
            assert job.output.annotation is Local
            assert job.is_async

    def test_functions_that_do_not_take_step_and_input_are_refused(self) -> None:
        """The message shows what the function takes."""

        async def nothing() -> None: ...

        async def only_step(step: Any) -> None: ...

        async def three(step: Any, input: Any, more: Any) -> None: ...

        async def by_keyword(step: Any, *, input: Any) -> None: ...

        async def keyword_too(step: Any, input: Any, *, more: Any) -> None: ...

        async def anything(*arguments: Any) -> None: ...

        for function in (anything, nothing, only_step, three, by_keyword, keyword_too, type):
            with pytest.raises(ValidationError, match=r"Job 'job'.*must take \(step, input\)"):
                define_job(name="job", run=function)

    def test_the_two_parameters_the_other_way_round_are_said_to_be(self) -> None:
        """Not that Pydantic cannot validate the step context; whether its annotation is text or the class."""

        async def by_text(input: int, step: StepContext) -> None: ...

        def by_class(input: int, step: Any) -> None: ...

        by_class.__annotations__["step"] = SyncStepContext
        for function in (by_text, by_class):
            with pytest.raises(ValidationError, match=r"must take \(step, input\), by_.* it takes 'step' second"):
                define_job(name="job", run=function)

    def test_an_input_may_have_a_name_that_ends_as_that_of_the_step(self) -> None:
        class OrderStepContext(BaseModel):
            number: int

        async def by_text(step: StepContext, input: OrderStepContext) -> None: ...

        def by_class(step: SyncStepContext, input: Any) -> None: ...

        by_class.__annotations__["input"] = OrderStepContext
        for function in (by_text, by_class):
            assert define_job(name="job", run=function).name == "job"

    def test_an_async_function_with_the_step_of_a_plain_one_is_refused(self) -> None:
        """A promise: nothing would be awaited, no step executed, and the run completed."""

        async def send(step: SyncStepContext, input: str) -> None:
            step.run("send", print, input)

        with pytest.raises(ValidationError, match=r"'mail': send is `async def`, so its step is a StepContext"):
            define_job(name="mail", run=send)

    def test_functions_that_yield_are_refused(self) -> None:
        """Nothing would call for what they yield."""

        def generator(step: Any, input: int) -> Any:
            yield input

        async def async_generator(step: Any, input: int) -> Any:
            yield input

        class Yielding:
            def __call__(self, step: Any, input: int) -> Any:
                yield input

        for function in (generator, async_generator, functools.partial(generator), Yielding()):
            with pytest.raises(ValidationError, match=r"Job 'job': .* yields, and a job must return.*a list"):
                define_job(name="job", run=function)

    def test_what_is_no_function_is_refused(self) -> None:
        """By its value."""
        with pytest.raises(ValidationError, match=r"run must be a function, got 5"):
            define_job(name="job", run=5)  # type: ignore[call-overload]

    @pytest.mark.parametrize("name", ["", None, 5, "a\x00b", "\ud800"], ids=repr)
    def test_a_bad_name_is_refused(self, name: Any) -> None:
        """`name` is required and never derived."""
        with pytest.raises(ValidationError, match="job name"):
            define_job(name=name)

    def test_a_name_is_required(self) -> None:
        """Renaming a function must not orphan its runs."""
        with pytest.raises(TypeError):
            define_job()  # type: ignore[call-overload]

    async def test_an_async_job_behind_a_plain_decorator_is_one(self) -> None:
        """S1: what it calls on the event loop is told by what it wraps."""

        def traced(function: Any) -> Any:
            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                return function(*args, **kwargs)

            return call

        @define_job(name="job")
        @traced
        async def job(step: StepContext, input: int) -> int:
            return await step.run("double", lambda: 2 * input)

        async with in_memory({"job": job}) as durably:
            assert (await run_until_idle(durably, job, 2)).output == 4

    def test_an_annotation_that_stands_for_itself_is_refused(self) -> None:
        """R3: its text would be looked up for ever."""
        with pytest.raises(ValidationError, match="'itself' stands for no type"):

            @define_job(name="job")
            async def job(step: StepContext, input: itself) -> None: ...  # type: ignore[valid-type]


class TestADefinition:
    async def test_it_can_be_called_like_its_function(self) -> None:
        """How one unit-tests a job with a fake step."""

        @define_job(name="job")
        async def job(step: StepContext, input: Order) -> Receipt:
            """Sell something."""
            return Receipt(await step.run("price", lambda: len(input.item)))

        assert await job(FakeStep(), Order(item="tea")) == Receipt(3)
        assert (job.name, job.__name__, job.__doc__) == ("job", "job", "Sell something.")
        assert repr(job) == "<JobDefinition 'job'>"
        assert job.__module__ == __name__
        assert isinstance(job, JobDefinition)

    def test_a_plain_one_too(self) -> None:
        """The same for a plain function."""

        @define_job(name="job")
        def job(step: SyncStepContext, input: int) -> int:
            return input + 1

        assert job(object(), 1) == 2
