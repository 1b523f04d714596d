"""Job definitions: a name, a function, and the types of what goes in and what comes out."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from types import CodeType, FrameType, FunctionType, SimpleNamespace
from typing import Any, Final, ForwardRef, Generic, Protocol, TypeVar, get_args, get_type_hints, overload

from durably.core.errors import ValidationError
from durably.core.json_refusals import not_json
from durably.core.json_values import Codec, NotJson, reason_of
from durably.core.names import checked_name
from durably.core.runs import Run

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")

_STEP_AND_INPUT: Final = ("step", "input")
_MOST_QUOTED: Final = 5


class _Mock:
    """Nobody's class. A mock derives from Any, so it is one, and it may stand for the step of either kind of job."""


class _PlainStep(Protocol):
    """The step context of a plain job; this one and the next are told apart by what `run` gives."""

    def run(self, name: str, fn: Callable[[], int], /) -> int: ...


class _AsyncStep(Protocol):
    """The step context of an `async def` job."""

    def run(self, name: str, fn: Callable[[], int], /) -> Coroutine[Any, Any, int]: ...


class JobDefinition(Generic[InputT, OutputT]):
    """A job that an instance can register: made by `define_job`.

    It can still be called like the function it wraps, which is how its code is tested with a fake step:

    >>> await import_csv(fake_step, ImportCsv(filename="a.csv"))
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        input_codec: Codec[InputT],
        output_codec: Codec[OutputT] | None,
    ) -> None:
        self.name = name
        self.function = function
        self.input = input_codec
        self.output = output_codec
        self.is_async = is_async_callable(function) or _wraps_async_job(function)
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", name)
        self.__module__ = getattr(function, "__module__", __name__)
        self.__wrapped__ = function

    @overload
    def __call__(self, step: _Mock, input: InputT, *args: Any, **kwargs: Any) -> Any: ...
    @overload
    def __call__(self, step: _PlainStep, input: InputT, *args: Any, **kwargs: Any) -> OutputT: ...
    @overload
    def __call__(self, step: _AsyncStep, input: InputT, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, OutputT]: ...
    @overload
    def __call__(self, step: object, input: InputT, *args: Any, **kwargs: Any) -> Any: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the job's function as it was written."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<JobDefinition {self.name!r}>"

    def stored_input(self, run: Run[Any]) -> InputT:
        """Return the input of a stored run as the input type. Raises `ValidationError` when it does not fit today."""
        if isinstance(run.input, NotJson):
            raise not_json(run.input, "input")
        return self.input.read(run.input, "input")


class _Decorator(Protocol[InputT, OutputT]):
    """Makes a job of a function, of the two types that were given."""

    def __call__(self, function: Callable[[Any, InputT], Any], /) -> JobDefinition[InputT, OutputT]: ...


class _InputDecorator(Protocol[InputT]):
    """The same, where the output type is that of the function's annotation."""

    @overload
    def __call__(
        self, function: Callable[[Any, InputT], Coroutine[Any, Any, OutputT]], /
    ) -> JobDefinition[InputT, OutputT]: ...
    @overload
    def __call__(self, function: Callable[[Any, InputT], OutputT], /) -> JobDefinition[InputT, OutputT]: ...


class _OutputDecorator(Protocol[OutputT]):
    """The same, where the input type is that of the function's annotation."""

    def __call__(self, function: Callable[[Any, InputT], Any], /) -> JobDefinition[InputT, OutputT]: ...


class _AnyDecorator(Protocol):
    """The same, where both types are those of the function's annotations."""

    @overload
    def __call__(
        self, function: Callable[[Any, InputT], Coroutine[Any, Any, OutputT]], /
    ) -> JobDefinition[InputT, OutputT]: ...
    @overload
    def __call__(self, function: Callable[[Any, InputT], OutputT], /) -> JobDefinition[InputT, OutputT]: ...


# To a type checker `int | str`, `Literal["a"]` and the like are no `type[T]`. They are Any here, as None is: then the
# function tells.
@overload
def define_job(  # pyright: ignore[reportOverlappingOverload] # the first one that fits counts
    *, name: str, input: type[InputT], output: type[OutputT], run: None = None
) -> _Decorator[InputT, OutputT]: ...
@overload
def define_job(*, name: str, input: type[InputT], output: Any = None, run: None = None) -> _InputDecorator[InputT]: ...
@overload
def define_job(
    *, name: str, input: Any = None, output: type[OutputT], run: None = None
) -> _OutputDecorator[OutputT]: ...
@overload
def define_job(*, name: str, input: Any = None, output: Any = None, run: None = None) -> _AnyDecorator: ...
@overload
def define_job(
    *, name: str, input: type[InputT], output: type[OutputT], run: Callable[[Any, Any], Any]
) -> JobDefinition[InputT, OutputT]: ...
@overload
def define_job(
    *,
    name: str,
    input: type[InputT],
    output: Any = None,
    run: Callable[[Any, Any], Coroutine[Any, Any, OutputT]],
) -> JobDefinition[InputT, OutputT]: ...
@overload
def define_job(
    *, name: str, input: type[InputT], output: Any = None, run: Callable[[Any, Any], OutputT]
) -> JobDefinition[InputT, OutputT]: ...
@overload
def define_job(
    *, name: str, input: Any = None, output: type[OutputT], run: Callable[[Any, InputT], Any]
) -> JobDefinition[InputT, OutputT]: ...
@overload
def define_job(
    *,
    name: str,
    input: Any = None,
    output: Any = None,
    run: Callable[[Any, InputT], Coroutine[Any, Any, OutputT]],
) -> JobDefinition[InputT, OutputT]: ...
@overload
def define_job(
    *, name: str, input: Any = None, output: Any = None, run: Callable[[Any, InputT], OutputT]
) -> JobDefinition[InputT, OutputT]: ...
def define_job(
    *,
    name: str,
    input: Any = None,
    output: Any = None,
    run: Callable[..., Any] | None = None,
) -> Any:
    """Define a job, as a decorator or with `run`.

    `name` is what the runs are stored under: renaming the function does not orphan them. `input` and
    `output` are types that Pydantic can validate and default to the function's annotations; without an
    output type any JSON value is stored unchecked. Raises `ValidationError` for a name that is empty or has more
    than 1,024 bytes, a function that does not take `(step, input)` or that yields, or a type that Pydantic cannot
    validate.

    >>> @define_job(name="greet")
    ... async def greet(step: StepContext, input: str) -> str:
    ...     return await step.run("greeting", lambda: f"hello {input}")
    """
    checked_name("job name", name, field="name")
    caller = sys._getframe(1)  # noqa: SLF001 - types local to the caller are visible nowhere else

    def define(function: Callable[..., Any]) -> JobDefinition[Any, Any]:
        return _define(name, function, input, output, caller)

    return define if run is None else define(run)


def is_async_callable(function: Callable[..., Any]) -> bool:
    """Tell whether calling `function` gives a coroutine."""
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType) and code.co_flags & inspect.CO_COROUTINE:
        return True
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(innermost(function))


def _wraps_async_job(function: Callable[..., Any]) -> bool:
    """Tell whether a plain function stands before an async job, as that of a decorator does."""
    inner = inspect.unwrap(function)
    if inner is function or not is_async_callable(inner):
        return False
    step = next(iter(inspect.signature(inner).parameters.values()))
    return not _is_step(step.annotation, "SyncStepContext")


def innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that is called in the end: by `functools.partial`s, by an object with `__call__`."""
    while isinstance(function, partial):
        function = function.func
    call = getattr(type(function), "__call__", None)  # noqa: B004 - the function is asked for
    return call if isinstance(call, FunctionType) and not isinstance(function, type) else function


def _define(
    name: str, function: Callable[..., Any], input: Any, output: Any, caller: FrameType
) -> JobDefinition[Any, Any]:
    if not callable(function):
        raise ValidationError(f"Job {name!r}: run must be a function, got {function!r}", field="run", value=function)
    if inspect.isgeneratorfunction(innermost(function)) or inspect.isasyncgenfunction(innermost(function)):
        raise ValidationError(
            f"Job {name!r}: {_described(function)} yields, and a job must return: collect what it yields in a list",
            field="run",
            value=function,
        )
    parameters = _parameters(name, function)
    if _is_step(parameters[1].annotation, "StepContext", "SyncStepContext"):
        raise _wrong_parameters(name, function, f"it takes {parameters[1].name!r} second")
    is_async = is_async_callable(function) and is_async_callable(inspect.unwrap(function))
    if is_async and _is_step(parameters[0].annotation, "SyncStepContext"):
        raise ValidationError(
            f"Job {name!r}: {_described(function)} is `async def`, so its step is a StepContext, whose `run` is to be "
            "awaited, and no SyncStepContext: name that one, or make it a plain `def`",
            field="run",
            value=function,
        )

    def type_of(given: Any, annotated: Any) -> Any:
        if given is not None and not has_text(given):
            return given
        return _resolve(name, annotated if given is None else given, function, caller)

    taken = type_of(input, parameters[1].annotation)
    returned = type_of(output, _return_annotation(function))
    return JobDefinition(name, function, _codec(name, "input", taken), _output_codec(name, returned))


def _parameters(name: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        signature = inspect.signature(function)
        signature.bind(*_STEP_AND_INPUT)
    except (TypeError, ValueError) as error:
        # Some built-in functions do not tell what they take.
        raise _wrong_parameters(name, function, str(error)) from None
    parameters = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(parameters) < len(_STEP_AND_INPUT):
        raise _wrong_parameters(name, function, f"it takes {signature}")
    return parameters


def _is_step(annotation: Any, *kinds: str) -> bool:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return text.rpartition(".")[2] in kinds


def _wrong_parameters(name: str, function: Callable[..., Any], why: str) -> ValidationError:
    return ValidationError(
        f"Job {name!r}: the function must take (step, input), {_described(function)} does not: {why}",
        field="run",
        value=function,
    )


def _described(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", repr(function)))


def _return_annotation(function: Callable[..., Any]) -> Any:
    return inspect.signature(function).return_annotation


def _resolve(name: str, annotation: Any, function: Callable[..., Any], caller: FrameType) -> Any:
    """Return the type that an annotation stands for; only this one is looked up, not the step's."""
    if annotation is inspect.Parameter.empty:
        return Any
    inner = inspect.unwrap(innermost(inspect.unwrap(function)))
    try:
        # Types defined inside a function are visible only in the frame that defines the job.
        return evaluated(annotation, getattr(inner, "__globals__", {}), dict(caller.f_locals))
    except (NameError, SyntaxError, AttributeError, TypeError) as error:
        raise ValidationError(
            f"Job {name!r}: the annotation {annotation!r} cannot be resolved: {error}; import the type where the "
            "program runs too, or give it as input= or output=",
            field="run",
            value=annotation,
        ) from error


def has_text(annotation: Any) -> bool:
    """Tell whether an annotation is text, or has text in it, as `list["Order"]`."""
    return isinstance(annotation, str | ForwardRef) or any(map(has_text, get_args(annotation)))


def evaluated(annotation: Any, names: dict[str, Any], local_names: dict[str, Any]) -> Any:
    """Return the type that an annotation stands for which is text, or has text in it, as `list["Order"]`.

    Raises whatever evaluating the text raises.
    """
    for _ in range(_MOST_QUOTED):
        if not isinstance(annotation, str):
            break
        annotation = eval(annotation, names, local_names)  # noqa: S307 - the user's own annotation
    else:
        raise NameError(f"{annotation!r} stands for no type")
    owner = SimpleNamespace(__annotations__={"return": annotation})
    return get_type_hints(owner, names, local_names, include_extras=True)["return"]


def _codec(name: str, field: str, annotation: Any, hint: str = "") -> Codec[Any]:
    try:
        return Codec(annotation)
    except ValidationError as error:
        raise ValidationError(
            f"Job {name!r}: the {field} type cannot be stored: {error}", field=field, value=annotation
        ) from error
    except Exception as error:
        raise ValidationError(
            f"Job {name!r}: Pydantic cannot validate the {field} type {annotation!r}: {reason_of(error)}{hint}",
            field=field,
            value=annotation,
        ) from error


def _output_codec(name: str, annotation: Any) -> Codec[Any] | None:
    if annotation is Any or annotation is None or annotation is type(None):
        return None
    return _codec(name, "output", annotation, "; leave it out to store any JSON value")
