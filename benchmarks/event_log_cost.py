"""What the log of events costs on the path of a step: the same workloads with its rows and without them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from benchmarks import workloads
from benchmarks.figures import Line, in_turns
from benchmarks.limits import fresh_file
from durably.core.events import DurablyEvent
from durably.stores.sqlite.event_log import EventLog
from durably.stores.sqlite.unit import Transaction

_ALLOWED: Final = 0.15

Workload = Callable[[str], Coroutine[Any, Any, float]]


def event_log_cost(directory: Path, steps: int, repetitions: int) -> Iterator[Line]:
    """Yield the share of the rate of W1 and W2 that writing events takes away."""
    for what, query, workload in (
        ("W1, FULL", "", partial(workloads.sequential_steps, steps=steps)),
        ("W1, NORMAL", "synchronous=normal", partial(workloads.sequential_steps, steps=steps)),
        ("W2, 100 in flight", "", partial(workloads.parallel_runs, runs=200, steps=20, in_flight=100)),
    ):
        paired = in_turns(
            partial(_without_rows, directory, query, workload), partial(_once, directory, query, workload), repetitions
        )
        cost = 1 - paired.ratio.median
        yield Line(
            f"Event log in {what}",
            paired.measured.show("/s"),
            f"without its rows {paired.limit.show('/s')}",
            f"costs {100 * cost:.0f} %",
            f"< {100 * _ALLOWED:.0f} %",
            cost < _ALLOWED,
        )


def _once(directory: Path, query: str, workload: Workload) -> float:
    with fresh_file(directory, query) as url:
        return asyncio.run(workload(url))


def _without_rows(directory: Path, query: str, workload: Workload) -> float:
    with _rows_left_out():
        return _once(directory, query, workload)


@contextmanager
def _rows_left_out() -> Iterator[None]:
    """Number the rows of the log without encoding or storing them; events are delivered all the same."""
    row = 0

    def write(_: EventLog, transaction: Transaction, events: list[DurablyEvent]) -> int:
        nonlocal row
        row += 1
        return row

    with patch.object(EventLog, "write", write):
        yield
