"""What the type of a step's result is, found out once per function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from types import CodeType
from typing import Any, Final

from durably.core.jobs import innermost
from durably.core.json_values import Codec, codec_or_none

_MOST_CACHED: Final = 1024
_by_code: dict[CodeType, Codec[Any] | None] = {}


def result_codec(function: Callable[..., Any], returns: Any) -> Codec[Any] | None:
    """Return the codec for a step's result: of `returns`, else of the function's annotation, if there is one."""
    if returns is not None:
        return _codec(returns)
    function = innermost(function)
    # Some callables, as mocks, have None there.
    annotation = (getattr(function, "__annotations__", None) or {}).get("return")
    if annotation is None:
        return None
    if isinstance(annotation, str):
        return _codec_of_text(annotation, inspect.unwrap(function))
    return _codec(annotation)


def takes_signal(function: Callable[..., Any]) -> bool:
    """Tell whether `function` has a parameter named `signal`."""
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        return "signal" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    try:
        return "signal" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _codec(annotation: Any) -> Codec[Any] | None:
    try:
        return _cached(annotation)
    except TypeError:
        return codec_or_none(annotation)


@lru_cache(maxsize=_MOST_CACHED)
def _cached(annotation: Any) -> Codec[Any] | None:
    return codec_or_none(annotation)


def _codec_of_text(annotation: str, function: Callable[..., Any]) -> Codec[Any] | None:
    # Without a closure the text means the same for every function that its code makes.
    code = getattr(function, "__code__", None)
    if code is None or code.co_freevars:
        return _look_up(annotation, function)
    if code not in _by_code:
        if len(_by_code) >= _MOST_CACHED:
            _by_code.clear()
        _by_code[code] = _look_up(annotation, function)
    return _by_code[code]


def _look_up(annotation: str, function: Callable[..., Any]) -> Codec[Any] | None:
    names = getattr(function, "__globals__", {})
    closure = inspect.getclosurevars(function).nonlocals if hasattr(function, "__closure__") else {}
    try:
        resolved: Any = annotation
        while isinstance(resolved, str):
            resolved = eval(resolved, dict(names), dict(closure))  # noqa: S307 - the user's own annotation
        return _codec(resolved)
    except (NameError, SyntaxError, TypeError, AttributeError):
        return None
