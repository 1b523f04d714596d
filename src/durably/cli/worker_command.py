"""`durably worker`: a process that executes the runs of an instance until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from typing import Any

from durably.app import Durably
from durably.cli.errors import CommandError
from durably.cli.loading import load_instance
from durably.cli.signals import STOP_SIGNALS, heard_by_the_worker_only
from durably.core.errors import DurablyError
from durably.core.events import RunFailEvent

log = logging.getLogger("durably")


def add_parser(verbs: argparse._SubParsersAction[Any]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "worker",
        help="execute runs until told to stop",
        description="Migrate the database and execute runs of its jobs. SIGTERM or Ctrl-C lets the runs that "
        "execute end; a second one gives them back, so that another worker continues them at once.",
    )
    parser.add_argument("target", metavar="MODULE:ATTRIBUTE", help="the instance, like app:durably")
    parser.add_argument(
        "--until-idle", action="store_true", help="stop when nothing is left to execute, for cron and serverless"
    )
    parser.set_defaults(perform=perform)


def perform(options: argparse.Namespace) -> int:
    """Execute runs. Raises `CommandError`."""
    durably = load_instance(options.target)
    spare_the_collector()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    # It tells of every request, and a libSQL server is asked several times a second.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if not durably.jobs:
        log.warning("%s has no jobs, so nothing will be executed: are they registered elsewhere?", options.target)
    try:
        with heard_by_the_worker_only():
            asyncio.run(_work(durably, until_idle=options.until_idle))
    except DurablyError as error:
        raise CommandError(str(error)) from error
    return 0


def spare_the_collector() -> None:
    """Let garbage collection pass over what is loaded by now.

    It stays until the process ends, and a busy worker would go through it again and again.
    """
    gc.collect()
    if sys.implementation.name == "cpython":
        gc.freeze()


async def _work(durably: Durably, *, until_idle: bool) -> None:
    told_to_stop, told_twice = _stop_signals()
    await (_until_idle if until_idle else _serve)(durably, told_to_stop, told_twice)
    if told_twice.is_set():
        # The thread of a plain job cannot be interrupted, and Python would wait for it.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


async def _until_idle(durably: Durably, told_to_stop: asyncio.Event, told_twice: asyncio.Event) -> None:
    try:
        failed: list[RunFailEvent] = []
        durably.on("run:fail", failed.append, scope="process")
        await durably.migrate()
        working = asyncio.create_task(durably.process_until_idle())
        told = asyncio.create_task(told_to_stop.wait())
        await asyncio.wait([working, told], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if not working.done():
            await _stop(durably, told_twice)
            working.cancel()
            await asyncio.wait([working])
            log.info("worker %d has stopped", os.getpid())
            return
        executed = working.result()
    finally:
        await durably.close()
    log.info("executed %s, %d failed; nothing is left", _counted(executed), len(failed))


async def _serve(durably: Durably, told_to_stop: asyncio.Event, told_twice: asyncio.Event) -> None:
    try:
        await durably.init()
        log.info("worker %d executes %s on %s", os.getpid(), _jobs_of(durably), durably.storage.name)
        await told_to_stop.wait()
        await _stop(durably, told_twice)
    finally:
        await durably.close()
    log.info("worker %d has stopped", os.getpid())


def _counted(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs:,} runs"


def _stop_signals() -> tuple[asyncio.Event, asyncio.Event]:
    told_to_stop, told_twice = asyncio.Event(), asyncio.Event()

    def hear(number: int) -> None:
        name = signal.Signals(number).name
        if told_to_stop.is_set():
            log.info("%s again: giving back what still executes", name)
            told_twice.set()
        else:
            log.info("%s: waiting for what executes; again to give it back", name)
            told_to_stop.set()

    _on_signals(hear)
    return told_to_stop, told_twice


async def _stop(durably: Durably, told_twice: asyncio.Event) -> None:
    stopping = asyncio.create_task(durably.stop())
    impatient = asyncio.create_task(told_twice.wait())
    await asyncio.wait([stopping, impatient], return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        await durably.stop(timeout=0)
        # All is given back; the patient one may still wait for a database that does not answer.
        stopping.cancel()
        await asyncio.wait([stopping])
        return
    impatient.cancel()
    await stopping


def _on_signals(hear: Any) -> None:
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        try:
            loop.add_signal_handler(number, hear, number)
        except NotImplementedError:
            # Windows has no such handlers; there the signal arrives between two bytecodes.
            signal.signal(number, lambda received, _: loop.call_soon_threadsafe(hear, received))


def _jobs_of(durably: Durably) -> str:
    return ", ".join(sorted(handle.name for handle in durably.jobs.values())) or "no jobs"
