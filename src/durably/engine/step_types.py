"""What the type of a step's result is, found out once per function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from types import CodeType, FunctionType, MethodType
from typing import Any, Final, NamedTuple, TypeVar, get_args

from durably.core.errors import ValidationError
from durably.core.jobs import evaluated, has_text, innermost
from durably.core.json_values import Codec, codec_or_none
from durably.engine.abort import AbortSignal

_MOST_CACHED: Final = 1024


class _Code(NamedTuple):
    """What is known of the functions that one code makes. It holds the code, so that its id stays its own."""

    code: CodeType
    takes_signal: bool
    takes_any_keyword: bool


class _Result(NamedTuple):
    """What an annotation means for the functions that one code makes."""

    code: CodeType
    annotation: Any
    codec: Codec[Any] | None
    is_text: bool
    """Whether it is text, or has text in it, which means the same for all of them; else it is this object only."""

    def is_of(self, annotation: Any) -> bool:
        return self.annotation is annotation or (self.is_text and bool(self.annotation == annotation))


# By id, because the hash of a code object is made from all that is in it, every time.
_codes: dict[int, _Code] = {}
_results: dict[int, _Result] = {}


def result_codec(name: str, function: Callable[..., Any], returns: Any) -> Codec[Any] | None:
    """Return the codec for a step's result: of `returns`, else of the function's annotation, if there is one.

    Raises `ValidationError` for what is no function, and for a type that cannot be stored; `name` is that of the step.
    """
    if not callable(function):
        raise _no_function(name, function)
    if returns is None:
        # Only of what is a function: an object may show the code of one that it calls, and return something else.
        known = _results.get(id(function.__code__)) if isinstance(function, FunctionType | MethodType) else None
        if known is not None and known.is_of(function.__annotations__.get("return")):
            return known.codec
    try:
        return _codec_of_annotation(function) if returns is None else _codec_as_said(returns)
    except ValidationError as error:
        raise ValidationError(
            f"the type of the result of step {name!r} cannot be stored: {error}", field=f"result of step {name!r}"
        ) from error


def _no_function(name: str, given: object) -> ValidationError:
    if inspect.iscoroutine(given):
        # Nobody will await it, and Python would warn of that too.
        given.close()
    return ValidationError(
        f"step {name!r} needs a function, and was given an object of type {type(given).__name__!r}: pass the function, "
        f"not its result, as in step.run({name!r}, function, argument)",
        field="fn",
        value=given,
    )


def with_signal(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], signal: AbortSignal
) -> dict[str, Any]:
    """Return the keywords to call a step's function with: `signal` too, if it has such a parameter left."""
    if "signal" in kwargs or not takes_signal(function) or (args and _takes_as_signal(function, args)):
        return kwargs
    return {**kwargs, "signal": signal}


def takes_signal(function: Callable[..., Any]) -> bool:
    """Tell whether `function` takes a `signal` by name, itself or for the function that it wraps."""
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        known = _codes.get(id(code))
        if known is None:
            by_name = code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
            known = _Code(code, "signal" in by_name, bool(code.co_flags & inspect.CO_VARKEYWORDS))
            _remember(_codes, known)
        if known.takes_signal or not known.takes_any_keyword:
            return known.takes_signal
        wrapped = getattr(function, "__wrapped__", None)
        return wrapped is not None and takes_signal(wrapped)
    if isinstance(function, partial) and "signal" in function.keywords:
        return False
    try:
        parameter = inspect.signature(function).parameters.get("signal")
    except (TypeError, ValueError):
        return False
    return parameter is not None and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def _takes_as_signal(function: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    try:
        return "signal" in inspect.signature(function).bind_partial(*args).arguments
    except TypeError:
        # The call itself will say what is wrong with them.
        return True


def _codec_of_annotation(function: Callable[..., Any]) -> Codec[Any] | None:
    function = innermost(function)
    # Some callables, as mocks, have None there.
    annotation = (getattr(function, "__annotations__", None) or {}).get("return")
    if annotation is None:
        return None
    if not has_text(annotation):
        codec = _codec(annotation)
        _remember_result(function, annotation, codec, is_text=False)
        return codec
    return _codec_of_text(annotation, inspect.unwrap(function))


def _codec_as_said(returns: Any) -> Codec[Any] | None:
    codec = None if isinstance(returns, str) else _codec(returns)
    if codec is None and returns not in (Any, type(None)):
        raise ValidationError(
            f"returns={returns!r} is no type that Pydantic can validate", field="returns", value=returns
        )
    return codec


def _codec(annotation: Any) -> Codec[Any] | None:
    try:
        # Unions of the same types are equal in whatever order they stand, which decides what a value is taken for.
        return _cached(annotation, "" if isinstance(annotation, type) else repr(annotation))
    except TypeError:
        return _made(annotation)


@lru_cache(maxsize=_MOST_CACHED)
def _cached(annotation: Any, text: str) -> Codec[Any] | None:  # noqa: ARG001 - to tell apart what is equal
    return _made(annotation)


def _made(annotation: Any) -> Codec[Any] | None:
    # The bound of a type variable would keep no more of a value than the bound knows.
    return None if _has_type_variable(annotation) else codec_or_none(annotation)


def _has_type_variable(annotation: Any) -> bool:
    return isinstance(annotation, TypeVar) or any(map(_has_type_variable, get_args(annotation)))


def _codec_of_text(annotation: Any, function: Callable[..., Any]) -> Codec[Any] | None:
    codec = _look_up(annotation, function)
    # Without a closure the text means the same for every function that its code makes.
    if not getattr(getattr(function, "__code__", None), "co_freevars", ()):
        _remember_result(function, annotation, codec, is_text=True)
    return codec


def _remember_result(function: Callable[..., Any], annotation: Any, codec: Codec[Any] | None, *, is_text: bool) -> None:
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        _remember(_results, _Result(code, annotation, codec, is_text))


def _remember(known: dict[int, Any], what: _Code | _Result) -> None:
    if len(known) >= _MOST_CACHED:
        known.clear()
    known[id(what.code)] = what


def _look_up(annotation: Any, function: Callable[..., Any]) -> Codec[Any] | None:
    try:
        return _codec(evaluated(annotation, dict(getattr(function, "__globals__", {})), _closure_of(function)))
    except (NameError, SyntaxError, TypeError, AttributeError):
        return None


def _closure_of(function: Callable[..., Any]) -> dict[str, Any]:
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return {}
    known = {}
    for name, cell in zip(code.co_freevars, getattr(function, "__closure__", None) or (), strict=True):
        # A name that is assigned later, or was deleted, has no value now.
        with suppress(ValueError):
            known[name] = cell.cell_contents
    return known
