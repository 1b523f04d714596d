"""The progress of runs that execute here: shown as it was told last, which is newer than what is stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from durably.core.events import RunProgressEvent
from durably.core.runs import ProgressData, Run, RunStatus

StoreProgress = Callable[[], Awaitable[None]]


class LiveProgress:
    """What listeners and feeds were told last of the progress of each run, from its first word to its end here."""

    def __init__(self) -> None:
        self._stores: dict[str, StoreProgress] = {}
        """Of each run that executes here and told progress, what stores it if it is not stored yet."""
        self._told: dict[str, ProgressData] = {}

    def begin(self, run_id: str, store: StoreProgress) -> None:
        """Show what is told of a run from now on; `store` stores what is not stored yet."""
        self._stores[run_id] = store

    def end(self, run_id: str, store: StoreProgress) -> None:
        """Show the progress of a run as it is stored, unless the run is executed here again already."""
        if self._stores.get(run_id) == store:
            del self._stores[run_id]
            self._told.pop(run_id, None)

    def note(self, event: RunProgressEvent) -> None:
        """Take what has been told."""
        if event.run_id in self._stores:
            self._told[event.run_id] = event.progress

    def forget(self, run_id: str) -> None:
        """Show nothing of a run that was claimed: it may have come further elsewhere since it was executed here."""
        self._told.pop(run_id, None)

    async def store(self, run_id: str) -> None:
        """Store what was told of a run, so that what was shown of it a moment ago is not taken back."""
        if (store := self._stores.get(run_id)) is not None:
            await store()

    def shown_in(self, runs: Sequence[Run[Any]], executing: Iterable[Run[Any]]) -> list[Run[Any]]:
        """Return runs as they are, those that execute here with the progress that was told last.

        The stored one is a fraction of a second older. Of runs that execute elsewhere not all may be heard here.
        """
        if not self._told:
            return list(runs)
        here = {run.id for run in executing} & self._told.keys()
        return [
            replace(run, progress=self._told[run.id]) if run.id in here and run.status is RunStatus.LEASED else run
            for run in runs
        ]
