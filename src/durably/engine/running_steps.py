"""The steps of one run that are being executed, and which of them wait for which."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from durably.core.errors import ValidationError


class RunningSteps(dict[str, str | None]):
    """The steps that have begun and not ended, each with the step in whose code it was begun, None for the job's own.

    A second step of a name waits for the first.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ends: dict[str, asyncio.Future[None]] = {}
        self._waits: list[tuple[str, str]] = []
        """Of each wait the step in whose code it is, and the step whose end it waits for."""

    def end(self, name: str) -> None:
        """Note that a step has ended, and wake who waits for that."""
        self.pop(name, None)
        if self._ends and (ended := self._ends.pop(name, None)) is not None and not ended.done():
            ended.set_result(None)

    async def wait_for(self, name: str, outer: str | None) -> None:
        """Return when a step has ended. Raises `ValidationError` where code of `outer` would wait for ever."""
        with self.waiting(name, outer):
            ended = self._ends.get(name)
            if ended is None:
                ended = self._ends[name] = asyncio.get_running_loop().create_future()
            await asyncio.wait([ended])

    @contextmanager
    def waiting(self, name: str, outer: str | None) -> Iterator[None]:
        """Note that code of `outer` waits for the end of a step. Raises `ValidationError` where that is for ever."""
        if outer is None:
            # No step waits for the job's own code.
            yield
            return
        self._check_end_is_possible(name, outer)
        wait = (outer, name)
        self._waits.append(wait)
        try:
            yield
        finally:
            self._waits.remove(wait)

    def _check_end_is_possible(self, name: str, outer: str) -> None:
        if name in self._around(outer):
            raise ValidationError(
                f"Invalid step name {name!r}: the step of this name runs around it and would wait for itself",
                field="name",
                value=name,
            )
        if outer in self._needed_by(name):
            raise ValidationError(
                f"Invalid step name {name!r}: used in step {outer!r}, for which the step of this name waits, so that "
                "both would wait for ever",
                field="name",
                value=name,
            )

    def _around(self, step: str | None) -> set[str]:
        """Return a step and all in whose code it is."""
        around: set[str] = set()
        while step is not None and step not in around:
            around.add(step)
            step = self.get(step)
        return around

    def _needed_by(self, name: str) -> set[str]:
        """Return all steps that have to end before a step can."""
        needed: set[str] = set()
        left = [name]
        while left:
            step = left.pop()
            inner = [each for each, outer in self.items() if outer == step]
            others = [other for waiting, other in self._waits if waiting == step]
            left += [each for each in (*inner, *others) if each not in needed]
            needed.update(inner, others)
        return needed
