"""W6: a run with thousands of finished steps whose process died, and the start of a new worker."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import workloads
from benchmarks.figures import Line, in_turns, paired_line
from benchmarks.limits import file_of
from benchmarks.processes import ask
from durably import create_durably, define_job
from durably.engine.step_context import StepContext

_READ: Final = "SELECT name, output FROM durably_steps WHERE run_id = ? AND status = 'completed'"


def resume(directory: Path, steps: int, repetitions: int) -> Iterator[Line]:
    """Yield the line of W6: from the start of the worker to its first step that was not done yet."""
    with TemporaryDirectory(dir=directory) as folder:
        crashed = Path(folder) / "crashed.db"
        _crash(f"sqlite:///{crashed}", steps)
        paired = in_turns(
            lambda: _read_raw(crashed), lambda: _resume_copy(crashed, Path(folder) / "copy", steps), repetitions
        )
    yield paired_line(f"W6 resume after {steps} steps", paired, "ms", "read and decode raw", 3, "lower")


def _crash(url: str, steps: int) -> None:
    ask("crash", url, steps)
    with closing(sqlite3.connect(file_of(url), isolation_level=None)) as connection:
        # What passes by itself half a minute later: the dead worker's lease runs out.
        connection.execute("UPDATE durably_runs SET lease_expires_at = '2000-01-01T00:00:00.000Z'")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        found = connection.execute("SELECT COUNT(*) FROM durably_steps WHERE status = 'completed'").fetchone()[0]
    if found != steps:
        raise RuntimeError(f"the crashed run has {found} finished steps, {steps} were expected")


def _read_raw(file: Path) -> float:
    started = time.perf_counter()
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        (run_id,) = connection.execute("SELECT id FROM durably_runs").fetchone()
        checkpoints = {name: json.loads(output) for name, output in connection.execute(_READ, (run_id,))}
    seconds = time.perf_counter() - started
    if not checkpoints:
        raise RuntimeError(f"{file} holds no finished steps")
    return seconds


def _resume_copy(crashed: Path, folder: Path, steps: int) -> float:
    folder.mkdir()
    try:
        copy = shutil.copy(crashed, folder / "bench.db")
        return asyncio.run(_resume(f"sqlite:///{copy}", steps))
    finally:
        shutil.rmtree(folder)


async def _resume(url: str, steps: int) -> float:
    reached: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def first_new_step(n: int) -> dict[str, int]:
        if n < steps:
            raise AssertionError(f"step {n} was finished before the crash and ran again")
        reached.set_result(time.perf_counter())
        return {"i": n}

    async def resumed(step: StepContext, input: int) -> None:
        for n in range(input):
            await step.run(f"step-{n}", workloads.no_op if n < steps else first_new_step, n)

    job = define_job(name="steps", run=resumed)
    durably = create_durably(database=url, jobs={"steps": job})
    await durably.migrate()
    started = time.perf_counter()
    await durably.start()
    seconds = await reached - started
    await durably.stop()
    await durably.close()
    return seconds
