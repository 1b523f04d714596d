"""W1 to W4 on a SQLite file, each beside its raw limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.figures import Line, Paired, in_turns, paired_line
from benchmarks.limits import fresh_file, raw_steps, raw_triggers

Measure = Callable[[], float]


@dataclass(frozen=True)
class Sizes:
    """How much is done in one repetition, and how many there are."""

    repetitions: int = 7
    steps: int = 2000
    runs: int = 200
    steps_per_run: int = 20
    single_runs: int = 2000
    triggers: int = 1000
    batches: int = 8
    batch: int = 500


class Throughput:
    """The workloads that are rates."""

    def __init__(self, directory: Path, sizes: Sizes) -> None:
        self._directory = directory
        self._sizes = sizes
        self._f1 = partial(raw_steps, directory, "FULL", per_commit=1, steps=sizes.steps)
        self._f50 = partial(raw_steps, directory, "FULL", per_commit=50, steps=max(50, 4 * sizes.steps))
        self._n1 = partial(raw_steps, directory, "NORMAL", per_commit=1, steps=2 * sizes.steps)

    def sequential(self) -> Iterator[Line]:
        """W1."""
        steps = self._sizes.steps
        full = self._paired(self._f1, partial(workloads.sequential_steps, steps=steps))
        yield paired_line(f"W1 {steps} steps in sequence, FULL", full, "/s", "F1", 0.6)
        looking = in_turns(self._f1, partial(self._f1, looks_at_log=True), self._sizes.repetitions)
        yield paired_line("F1 with `os.stat` of the write-ahead log before each step", looking, "/s", "F1", None)
        normal = self._paired(self._n1, partial(workloads.sequential_steps, steps=steps), "synchronous=normal")
        yield paired_line(f"W1 {steps} steps in sequence, NORMAL", normal, "/s", "N1", 0.35)

    def parallel(self) -> Iterator[Line]:
        """W2, at several concurrencies; the best one has to reach its target."""
        runs, steps = self._sizes.runs, self._sizes.steps_per_run
        found: dict[int, Paired] = {}
        for in_flight in (10, 50, 100, 200):
            workload = partial(workloads.parallel_runs, runs=runs, steps=steps, in_flight=in_flight)
            found[in_flight] = self._paired(self._f50, workload)
        best = max(found, key=lambda in_flight: found[in_flight].ratio.median)
        for in_flight, paired in found.items():
            target = 0.15 if in_flight == 10 else 0.4 if in_flight == best else None
            mark = " (best)" if in_flight == best else ""
            yield paired_line(
                f"W2 {runs} runs x {steps} steps, {in_flight} in flight{mark}", paired, "/s", "F50", target
            )

    def single_step_runs(self) -> Iterator[Line]:
        """W3."""
        runs = self._sizes.single_runs
        for in_flight in (10, 100):
            paired = self._paired(self._f1, partial(workloads.queued_runs, runs=runs, in_flight=in_flight))
            target = 1.5 if in_flight == 100 else None
            yield paired_line(f"W3 {runs} runs of one step, {in_flight} in flight", paired, "/s", "F1", target)

    def triggering(self) -> Iterator[Line]:
        """W4."""
        sizes = self._sizes
        single = self._paired(self._f1, partial(workloads.triggers, count=sizes.triggers))
        yield paired_line(f"W4 {sizes.triggers} triggers one by one", single, "/s", "F1", 0.6)
        batch = self._paired(self._f50, partial(workloads.batch_triggers, batches=sizes.batches, size=sizes.batch))
        yield paired_line(f"W4 triggers in batches of {sizes.batch}", batch, "/s", "F50", 1.5)
        raw = in_turns(self._f50, partial(raw_triggers, self._directory, sizes.batches, sizes.batch), sizes.repetitions)
        yield paired_line("the same rows by nothing but `executemany`", raw, "/s", "F50", None)

    def _paired(self, limit: Measure, workload: Callable[[str], Coroutine[Any, Any, float]], query: str = "") -> Paired:
        return in_turns(limit, partial(self._once, workload, query), self._sizes.repetitions)

    def _once(self, workload: Callable[[str], Coroutine[Any, Any, float]], query: str) -> float:
        with fresh_file(self._directory, query) as url:
            return asyncio.run(workload(url))
