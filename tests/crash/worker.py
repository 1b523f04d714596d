"""The program that is killed.

`python -m tests.crash.worker` reads plans from its standard input, one a line, and forks a process for each: the
interpreter and its imports are there already, so that a life costs milliseconds. It tells `started PID` and
`ended PID STATUS`; when its input ends it kills what is left.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from durably import Durably, create_durably
from durably.engine.system_clock import SystemClock
from durably.options import BatchItem
from durably.stores import open_store
from durably.stores.sqlite.store import SqliteStore
from tests.crash.fate import Fate, MortalStore, make_connections_mortal
from tests.crash.jobs import jobs_for
from tests.crash.ledger import Ledger
from tests.crash.plan import Plan

BATCH_SIZE = 7
SMALL_WALK = {"steps": 2, "pad": 0, "pause": 0}


class ClockAhead(SystemClock):
    """This machine's clock, as it will be in a while."""

    def __init__(self, seconds: float) -> None:
        self._ahead = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return super().now() + self._ahead


async def live(plan: Plan) -> None:
    """Do what a plan says."""
    fate, ledger, clock = Fate(plan.death), Ledger(plan.ledger), ClockAhead(plan.clock_ahead)
    store: Any = open_store(plan.database, clock)
    if isinstance(store, SqliteStore):
        make_connections_mortal(store, fate, plan.autocheckpoint)
        fate.limit_files(Path(store._database.path))
    durably = create_durably(
        database=MortalStore(store, fate),
        jobs=jobs_for(ledger, fate),
        clock=clock,
        lease_duration=plan.lease,
        lease_renew_interval=plan.renew,
        max_concurrent_runs=plan.concurrency,
        polling_interval=0.05,
        preserve_steps=True,
        worker_id=plan.name,
    )
    await TASKS[plan.task](durably, plan, ledger)
    await durably.stop()
    await durably.close()


async def work(durably: Durably, plan: Plan, ledger: Ledger) -> None:
    await durably.process_until_idle()


async def serve(durably: Durably, plan: Plan, ledger: Ledger) -> None:
    await durably.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    ledger.write("serving", plan.name)
    await ended.wait()


async def migrate(durably: Durably, plan: Plan, ledger: Ledger) -> None:
    await durably.migrate()


async def trigger(durably: Durably, plan: Plan, ledger: Ledger) -> None:
    for number in range(plan.count):
        run = await durably.jobs.walk.trigger(SMALL_WALK, labels={"by": plan.name, "number": str(number)})
        ledger.write("acknowledged", run.id)


async def batch(durably: Durably, plan: Plan, ledger: Ledger) -> None:
    for number in range(plan.count):
        label = f"{plan.name}/{number}"
        items = [BatchItem(SMALL_WALK, labels={"batch": label}) for _ in range(BATCH_SIZE)]
        await durably.jobs.walk.batch_trigger(items)
        ledger.write("acknowledged", label)


async def operate(durably: Durably, plan: Plan, ledger: Ledger) -> None:
    for run in await durably.get_runs(labels={"to": "delete"}):
        await durably.delete_run(run.id)
        ledger.write("acknowledged", run.id)
    for run in await durably.get_runs(labels={"to": "cancel"}, status="pending"):
        await durably.cancel(run.id)
        ledger.write("acknowledged", run.id)
    await durably.purge_runs(older_than="0s", limit=plan.count)


TASKS: dict[str, Callable[[Durably, Plan, Ledger], Any]] = {
    "work": work,
    "serve": serve,
    "migrate": migrate,
    "trigger": trigger,
    "batch": batch,
    "operate": operate,
}


# --- the server that forks ---------------------------------------------------------------------------


class ForkServer:
    """Forks a process for every plan that it reads, and tells how each ended."""

    def __init__(self) -> None:
        self._children: set[int] = set()
        self._child_ended, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self._child_ended, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake)

    def run(self) -> None:
        read = b""
        while True:
            ready, _, _ = select.select([0, self._child_ended], [], [])
            if self._child_ended in ready:
                os.read(self._child_ended, 4096)
                self._reap()
            if 0 in ready:
                data = os.read(0, 65536)
                if not data:
                    break
                *plans, read = (read + data).split(b"\n")
                for plan in plans:
                    self._fork(plan.decode())
        for child in self._children:
            os.kill(child, signal.SIGKILL)

    def _fork(self, plan: str) -> None:
        pid = os.fork()
        if pid == 0:
            be_born(plan)
        self._children.add(pid)
        _say("started", pid)

    def _reap(self) -> None:
        for child in tuple(self._children):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                self._children.discard(pid)
                _say("ended", pid, os.waitstatus_to_exitcode(status))


def be_born(plan: str) -> None:
    """Be the process of a plan, in the fork; never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        asyncio.run(live(Plan.from_json(plan)))
        status = 0
    except BaseException:  # noqa: BLE001 - the fork must not go on as the server
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


if __name__ == "__main__":
    gc.collect()
    gc.freeze()
    ForkServer().run()
