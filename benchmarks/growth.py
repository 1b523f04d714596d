"""Growth: what claiming, triggering, a step and a page of a list cost when many runs are stored already."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks import workloads
from benchmarks.figures import Line, Samples, number, samples
from benchmarks.limits import open_raw
from durably import Durably
from durably.core.clock import to_text
from durably.core.events import StepCompleteEvent
from durably.core.leases import Claim
from durably.core.store import StepRecord
from durably.core.ulid import new_ulid

Costs = dict[str, list[float]]

_STORED_JOBS: Final = ("steps", "import", "report", "mail", "resize")
_ROWS_AT_ONCE: Final = 20_000
_WRITE_TARGET: Final = 1.3
_LIST_TARGET: Final = 2.0
_PAGE: Final = 20
_WRITES_PER_LIST: Final = 5

_INSERT_RUN: Final = """
INSERT INTO durably_runs (id, job_name, input, status, idempotency_key, concurrency_key, labels, output, error,
  lease_owner, lease_expires_at, lease_generation, started_at, completed_at, created_at, updated_at)
VALUES (?, ?, '{"n":1}', ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?)
"""
_INSERT_LABEL: Final = "INSERT INTO durably_run_labels (run_id, key, value) VALUES (?, ?, ?)"

LISTS: Final[dict[str, dict[str, Any]]] = {
    "no filter": {},
    "status=pending": {"status": "pending"},
    "status=failed": {"status": "failed"},
    "two statuses": {"status": ["failed", "cancelled"]},
    "job": {"job_name": "report"},
    "job and status": {"job_name": "report", "status": "failed"},
    "common label": {"labels": {"region": "eu"}},
    "rare label": {"labels": {"tenant": "t7"}},
    "two labels": {"labels": {"region": "eu", "tenant": "t7"}},
    "two labels, rare one first": {"labels": {"tenant": "t7", "region": "eu"}},
    "two labels that never meet": {"labels": {"region": "us", "tenant": "t7"}},
    "common label and rare status": {"labels": {"region": "eu"}, "status": "leased"},
    "common label and a job": {"labels": {"region": "eu"}, "job_name": "report"},
    "common label and a job that never has it": {"labels": {"region": "eu"}, "job_name": "nightly"},
}


def growth(directory: Path, sizes: tuple[int, ...], repetitions: int, say: Callable[[str], None]) -> Iterator[Line]:
    """Yield the cost of each operation at each size, and the worst ratio to the smallest size."""
    with TemporaryDirectory(dir=directory) as folder:
        files = {}
        for size in sizes:
            say(f"building a database of {size:,} runs")
            files[size] = Path(folder) / f"stored-{size}.db"
            build(files[size], size, claimable=2 * repetitions + 10)
        say("measuring on each in turns")
        writes, lists = asyncio.run(_measure(files, repetitions))
    for what, found in writes.items():
        yield _line(what, found, _WRITE_TARGET)
    for what, found in lists.items():
        # A page of a database without runs is empty: nothing to compare with.
        yield _line(
            f"first page of {_PAGE}: {what}", {size: each for size, each in found.items() if size}, _LIST_TARGET
        )


def _line(what: str, found: dict[int, Samples], target: float) -> Line:
    first, *others = found
    ratios = {size: found[size].median / found[first].median for size in others}
    worst = max(ratios, key=lambda size: ratios[size])
    return Line(
        f"Growth, {what}",
        ", ".join(f"{size:,}: {number(each.median, 'us')}" for size, each in found.items()) + " us",
        f"at {first:,} runs {found[first].show('us')}",
        f"{ratios[worst]:.2f} x at {worst:,}",
        f"<= {target:g} x",
        ratios[worst] <= target,
    )


# --- the databases -------------------------------------------------------------------------------


def build(file: Path, count: int, claimable: int) -> None:
    """Fill a file with runs of several jobs, in every status, with labels and keys, one a second.

    Before them stand `claimable` waiting runs, the same at every size: what is claimed must not differ.
    """
    with closing(open_raw(file, "NORMAL")) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        created = datetime.now(UTC) - timedelta(seconds=count)
        for first in range(0, count, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, count)
            _insert(connection, [(n, _row(n, created + timedelta(seconds=n), _status(n))) for n in range(first, last)])
        waiting = range(-claimable, 0)
        _insert(connection, [(n, _row(n, created + timedelta(seconds=n), "pending")) for n in waiting])
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _insert(connection: sqlite3.Connection, rows: list[tuple[int, tuple[Any, ...]]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_INSERT_RUN, [row for _, row in rows])
    connection.executemany(_INSERT_LABEL, [label for n, row in rows for label in _labels(n, row[0])])
    connection.execute("COMMIT")


def _row(n: int, created: datetime, status: str) -> tuple[Any, ...]:
    at = to_text(created)
    is_leased, is_ended = status == "leased", status not in ("pending", "leased")
    return (
        new_ulid(int(created.timestamp() * 1000)),
        _STORED_JOBS[n % len(_STORED_JOBS)],
        status,
        f"key-{n}" if n % 10 == 0 else None,
        f"one-{n}" if n % 7 == 0 else None,
        f'{{"region":"{_region(n)}","tenant":"t{n % 500}"}}',
        '{"ok":true}' if status == "completed" else None,
        "it failed" if status == "failed" else None,
        "elsewhere" if is_leased else None,
        "2999-01-01T00:00:00.000Z" if is_leased else None,
        None if status == "pending" else at,
        at if is_ended else None,
        at,
        at,
    )


def _status(n: int) -> str:
    """Return a status: of a thousand runs 10 leased, 90 pending, 100 failed, 50 cancelled, the rest completed."""
    place = n * 7919 % 1000
    for below, status in ((10, "leased"), (100, "pending"), (200, "failed"), (250, "cancelled")):
        if place < below:
            return status
    return "completed"


def _region(n: int) -> str:
    return "eu" if n % 2 else "us"


def _labels(n: int, run_id: str) -> tuple[tuple[str, str, str], ...]:
    return ((run_id, "region", _region(n)), (run_id, "tenant", f"t{n % 500}"))


# --- the measurement -----------------------------------------------------------------------------


async def _measure(
    files: dict[int, Path], repetitions: int
) -> tuple[dict[str, dict[int, Samples]], dict[str, dict[int, Samples]]]:
    """Measure on all databases in turns: whatever the machine does meets every size."""
    writes: dict[int, Costs] = {size: {} for size in files}
    lists: dict[int, Costs] = {size: {what: [] for what in LISTS} for size in files}
    async with AsyncExitStack() as stack:
        # Not waiting for the disk shows growth best: what a commit costs would hide what its statements cost.
        opened = {
            size: await stack.enter_async_context(workloads.without_worker(f"sqlite:///{file}?synchronous=normal"))
            for size, file in files.items()
        }
        for repetition in range(repetitions + 1):
            for size, durably in opened.items():
                is_warm = repetition > 0
                await _write_once(durably, writes[size] if is_warm else {}, size)
                if repetition % _WRITES_PER_LIST == 0:
                    await _list_once(durably, lists[size] if is_warm else {})
    return _by_operation(writes), _by_operation(lists)


async def _write_once(durably: Durably, costs: Costs, stored: int) -> None:
    store = durably.storage
    await _timed(costs, "trigger", durably.jobs.steps.trigger(1, labels={"region": "eu"}))
    claimed = await _timed(costs, "claim", store.claim("growth", list(_STORED_JOBS), 1, 3600))
    if not claimed:
        raise RuntimeError(f"nothing could be claimed among {stored} stored runs")
    for index in range(3):
        await _timed(costs, "step", store.record_step(claimed[0].claim, *_step(claimed[0].claim, index)))


def _step(claim: Claim, index: int) -> tuple[StepRecord, None, StepCompleteEvent]:
    now, name = datetime.now(UTC), f"step-{index}"
    event = StepCompleteEvent(
        timestamp=now,
        run_id=claim.run_id,
        job_name="steps",
        labels={},
        step_name=name,
        step_index=index,
        output_json="1",
        duration=0.0,
    )
    return StepRecord(new_ulid(int(now.timestamp() * 1000)), name, index, "1", None, now, now), None, event


async def _list_once(durably: Durably, costs: Costs) -> None:
    # The first read after a write finds its connection's cache empty: that must not always be the same list.
    for what in random.sample(list(LISTS), len(LISTS)):
        await _timed(costs, what, durably.get_runs(limit=_PAGE, **LISTS[what]))


async def _timed(costs: Costs, what: str, work: Awaitable[Any]) -> Any:
    started = time.perf_counter()
    result = await work
    costs.setdefault(what, []).append(time.perf_counter() - started)
    return result


def _by_operation(costs: dict[int, Costs]) -> dict[str, dict[int, Samples]]:
    operations = next(iter(costs.values()))
    return {what: {size: samples(each[what]) for size, each in costs.items()} for what in operations}
