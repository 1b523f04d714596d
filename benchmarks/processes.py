"""Programs of their own for what must not share a process: `python -m benchmarks.processes ROLE URL [NUMBER]`.

Each prints one line of JSON when it is ready, or when it has its result. `ROLES` says what they do.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks import workloads

_SETTLE_SECONDS: Final = 1.0
_CRASH_STATUS: Final = 70


def ask(role: str, url: str, number: float = 0, *, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a role to its end and return what it printed."""
    with _started(role, url, number, environment) as process:
        answer = process.stdout.readline() if process.stdout else ""
        status = process.wait()
    if status not in (0, _CRASH_STATUS) or not answer:
        raise RuntimeError(f"the process {role} ended with status {status} and printed {answer!r}")
    result: dict[str, Any] = json.loads(answer)
    return result


@contextmanager
def running(role: str, url: str, number: float = 0) -> Iterator[None]:
    """Keep a role running; it is ready when the block begins and ended after it."""
    with _started(role, url, number, None) as process:
        if not (process.stdout and process.stdout.readline()):
            raise RuntimeError(f"the process {role} ended with status {process.wait()} before it was ready")
        yield


@contextmanager
def _started(role: str, url: str, number: float, environment: dict[str, str] | None) -> Iterator[subprocess.Popen[str]]:
    root = Path(__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.processes", role, url, str(number)],
        cwd=root,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def memory() -> dict[str, float]:
    """Return the resident memory of this process in MiB: now and at its peak."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    sizes = {name: int(size) / 1024 for name, size in re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", status)}
    return {"now": sizes["VmRSS"], "peak": sizes["VmHWM"]}


# --- the roles -----------------------------------------------------------------------------------


async def idle_worker_memory(url: str, _: float) -> None:
    async with workloads.instance(url):
        await asyncio.sleep(_SETTLE_SECONDS)
        _answer(memory())


async def parallel_memory(url: str, in_flight: float) -> None:
    await workloads.parallel_runs(url, 200, 20, int(in_flight))
    _answer(memory())


async def backlog_memory(url: str, seconds: float) -> None:
    """Work on what is pending for some seconds."""
    async with workloads.instance(url) as durably:
        await asyncio.sleep(seconds)
        _answer(memory())
        await durably.stop(0)


async def worker(url: str, _: float) -> None:
    async with workloads.instance(url):
        _answer({})
        await asyncio.Event().wait()


async def busy_worker(url: str, slots: float) -> None:
    async with workloads.instance(url, max_concurrent_runs=int(slots)):
        _answer({})
        await asyncio.Event().wait()


async def idle_worker_time(url: str, seconds: float) -> None:
    async with workloads.instance(url):
        _answer(await _processor_time(seconds))


async def watcher_time(url: str, seconds: float) -> None:
    """Follow a run that another program may execute some day."""
    async with workloads.without_worker(url) as durably:
        run = await durably.jobs.steps.trigger(1)

        async def follow() -> None:
            async for _ in durably.subscribe(run.id):
                pass

        following = asyncio.create_task(follow())
        _answer(await _processor_time(seconds))
        following.cancel()


async def crash(url: str, steps: float) -> None:
    """Do steps, and die in the one after them."""
    async with workloads.instance(url) as durably:
        durably.on("step:complete", lambda event: _crash_after(int(steps), event.step_index))
        await durably.jobs.steps.trigger_and_wait(int(steps) + 1)


def _crash_after(steps: int, index: int) -> None:
    if index + 1 == steps:
        _answer({})
        os._exit(_CRASH_STATUS)


async def _processor_time(seconds: float) -> dict[str, float]:
    await asyncio.sleep(_SETTLE_SECONDS)
    before, started = _used(), time.perf_counter()
    await asyncio.sleep(seconds)
    return {"share": (_used() - before) / (time.perf_counter() - started)}


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _answer(result: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


ROLES: Final[dict[str, Callable[[str, float], Awaitable[None]]]] = {
    role.__name__: role
    for role in (
        idle_worker_memory,
        parallel_memory,
        backlog_memory,
        worker,
        busy_worker,
        idle_worker_time,
        watcher_time,
        crash,
    )
}

if __name__ == "__main__":
    asyncio.run(ROLES[sys.argv[1]](sys.argv[2], float(sys.argv[3])))  # type: ignore[arg-type] # every role is a coroutine function
