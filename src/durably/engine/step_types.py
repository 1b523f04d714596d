"""What the type of a step's result is, found out once per function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from types import CodeType
from typing import Any

from durably.core.jobs import innermost
from durably.core.json_values import Codec, codec_or_none


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


@lru_cache(maxsize=1024)
def _cached(annotation: Any) -> Codec[Any] | None:
    return codec_or_none(annotation)


def _codec_of_text(annotation: str, function: Callable[..., Any]) -> Codec[Any] | None:
    names = getattr(function, "__globals__", {})
    closure = inspect.getclosurevars(function).nonlocals if hasattr(function, "__closure__") else {}
    try:
        resolved: Any = annotation
        while isinstance(resolved, str):
            resolved = eval(resolved, dict(names), dict(closure))  # noqa: S307 - the user's own annotation
        return _codec(resolved)
    except (NameError, SyntaxError, TypeError, AttributeError):
        return None
