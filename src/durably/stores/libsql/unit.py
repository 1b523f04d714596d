"""A unit of work: statements that are done together, and what their rows mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from durably.core.errors import DurablyError
from durably.stores.libsql.hrana import Rows, Statement

T = TypeVar("T")


@dataclass(slots=True)
class Unit(Generic[T]):
    """Statements of one write, and what becomes of their rows, which may be a `DurablyError` to raise.

    One that is undone when a statement fails goes `alone`; `refused` turns that failure into its error.
    """

    statements: list[Statement]
    result: Callable[[list[Rows]], T]
    alone: bool = False
    refused: Callable[[int, list[Rows]], DurablyError | None] | None = None


@dataclass(slots=True)
class Part(Generic[T]):
    """A write that becomes one unit with all others whose `together` is the same, which answers them in order.

    Such units are the first of a transaction, those of the lowest `place` before the others.
    """

    value: Any
    together: Callable[[Sequence[Any]], Unit[list[T]]]
    place: int
    alone: bool = False
