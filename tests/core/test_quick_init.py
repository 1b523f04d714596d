"""What is made quickly is a frozen dataclass like any other."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, replace

import pytest

from durably.core.quick_init import quick_init


@dataclass(frozen=True, slots=True)
class Slow:
    """A dataclass as it comes."""

    a: int
    b: str = "b"


@quick_init
@dataclass(frozen=True, slots=True)
class Quick(Slow):
    """The same, with a field more."""

    c: tuple[int, ...] = ()


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Its fields are given by name."""

    first: int = 1
    second: int


class TestQuickInit:
    def test_it_is_frozen_compared_copied_and_pickled(self) -> None:
        """E: events and runs are values."""
        quick = Quick(1, c=(2,))

        assert quick == Quick(1, "b", (2,)) != Quick(1)
        assert repr(quick) == "Quick(a=1, b='b', c=(2,))"
        assert replace(quick, a=5) == Quick(5, "b", (2,))
        assert pickle.loads(pickle.dumps(quick)) == quick
        with pytest.raises(FrozenInstanceError):
            quick.a = 2  # type: ignore[misc] # what must not work

    def test_arguments_are_those_of_the_dataclass(self) -> None:
        """A missing or unknown one is refused by its name."""
        assert Named(second=2) == Named(first=1, second=2)
        assert list(inspect.signature(Quick).parameters) == ["a", "b", "c"]
        with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'second'"):
            Named()  # type: ignore[call-arg] # what must not work
        with pytest.raises(TypeError, match="takes 1 positional argument"):
            Named(1, 2)  # type: ignore[call-arg] # what must not work
