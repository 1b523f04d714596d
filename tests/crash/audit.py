"""What must be true after every death, and in the end: told from the database, the side file and the event log."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from durably import Durably, Run
from durably.core.store import Position
from tests.crash.client import client
from tests.crash.ledger import read_ledger
from tests.crash.sqlite_file import check_integrity

Place = tuple[str, str]
"""A step of a run."""


class Audit:
    """Compares what the processes did with what the database holds. Every rule has a sentence for its breach."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.acknowledged: set[str] = set()
        self.executions = 0
        self._results: dict[Place, str] = {}
        self._settled: set[str] = set()
        """Runs whose steps were read after their end: they are read again only at the very end."""
        self._attempts: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._events: Counter[tuple[str, ...]] = Counter()
        self._position = Position(0)

    async def after_death(self, ledger: Path) -> list[Run[Any]]:
        """Check everything that must hold at any time; return all runs. `ledger` may have been read before."""
        new_lines = self._new_lines(ledger)
        async with client(self.database) as durably:
            runs = await durably.get_runs()
            stored = await self._stored_steps(durably, [run for run in runs if run.id not in self._settled])
            await self._read_events(durably)
        self._check_ledger(new_lines, stored)
        lost = self.acknowledged - {run.id for run in runs}
        assert not lost, f"acknowledged runs are gone: {lost}"
        counts = Counter(run_id for run_id, _ in stored)
        for run in runs:
            count = counts[run.id]
            assert run.completed_step_count == count, (
                f"{run.id} counts {run.completed_step_count} steps and has {count}"
            )
        self._results |= stored
        check_integrity(self.database)
        return runs

    async def at_the_end(self, ledger: Path, steps_of: dict[str, int] | int) -> None:
        """Check that every run has completed, with every step once and the results that the job saw."""
        self._settled.clear()
        for run in await self.after_death(ledger):
            steps = steps_of if isinstance(steps_of, int) else steps_of[run.id]
            assert run.status == "completed", f"{run.id} is {run.status}: {run.error}"
            tokens = [self._results[run.id, f"step-{i}"][:16] for i in range(steps)]
            assert run.output == tokens, f"{run.id} returned {run.output}, its steps are {tokens}"
            self._check_events(run, steps)

    def _check_ledger(self, lines: list[list[str]], stored: dict[Place, str]) -> None:
        """S1: a line after a step means that its result is stored. S2: what was stored once never ran again."""
        known = dict(self._results)
        for line in lines:
            match line:
                case ["ran", run_id, name, attempt]:
                    self.executions += 1
                    latest = self._attempts[run_id] = max(int(attempt), self._attempts.get(run_id, 0))
                    # A suspended process may come to the end of a function that it had begun, long overtaken.
                    is_overtaken = int(attempt) < latest
                    assert is_overtaken or (run_id, name) not in known, (
                        f"completed step ran again in attempt {attempt}: {run_id} {name}"
                    )
                case ["returned", run_id, name, token]:
                    result = stored.get((run_id, name))
                    assert result is not None, f"a step returned but is not stored: {run_id} {name}"
                    assert result[:16] == token, f"a step returned {token}, stored is {result[:16]}: {run_id} {name}"
                    known[run_id, name] = result
        for place, result in self._results.items():
            assert stored.get(place) == result, f"a stored result is gone or another: {place}"

    def _check_events(self, run: Run[Any], steps: int) -> None:
        """An event is stored with what it tells of: there is one of each, however often the run was tried."""
        told = {key[1:]: count for key, count in self._events.items() if key[0] == run.id}
        expected = {("run:trigger",): 1, ("run:leased",): run.lease_generation, ("run:complete",): 1}
        expected |= {("step:complete", f"step-{i}"): 1 for i in range(steps)}
        assert told == expected, f"{run.id} told {told}, expected {expected}"

    async def _read_events(self, durably: Durably) -> None:
        while (page := await durably.storage.events_after(self._position, 1000)).events:
            assert page.is_gapless
            for recorded in page.events:
                event = recorded.event
                if event.type in ("run:trigger", "run:leased", "run:complete", "run:fail", "run:cancel"):
                    self._events[event.run_id, event.type] += 1
                elif event.type == "step:complete":
                    self._events[event.run_id, event.type, event.step_name] += 1
            self._position = page.events[-1].position

    async def _stored_steps(self, durably: Durably, runs: list[Run[Any]]) -> dict[Place, str]:
        """Return all completed steps: those of settled runs as they were, those of `runs` as they are."""
        stored = {place: result for place, result in self._results.items() if place[0] in self._settled}
        for run in runs:
            for step in await durably.get_steps(run.id):
                if step.status == "completed":
                    assert (run.id, step.name) not in stored, f"two results of one step: {run.id} {step.name}"
                    stored[run.id, step.name] = step.output
        self._settled |= {run.id for run in runs if run.is_terminal}
        return stored

    def _new_lines(self, ledger: Path) -> list[list[str]]:
        lines = read_ledger(ledger)
        seen = self._seen.get(str(ledger), 0)
        self._seen[str(ledger)] = len(lines)
        return lines[seen:]
