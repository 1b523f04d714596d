"""Start everything: `python -m examples.fullstack [--port PORT] [--data FOLDER]`. Ctrl-C stops it."""

import argparse
import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path

from examples.fullstack import settings
from examples.fullstack.building import BuildError, build_page

GRACE_SECONDS = 3


class Supervisor:
    """Keeps a web process and a worker process running: a worker that dies is replaced."""

    def __init__(self, data: Path, port: int) -> None:
        self._environment = {**os.environ, "FULLSTACK_DATA": str(data)}
        self._port = port

    async def run(self, stopping: asyncio.Event) -> int:
        """Run until `stopping` is set, or the web process ends; return the exit status."""
        told = asyncio.create_task(stopping.wait())
        web = await self._start("examples.fullstack.web", str(self._port))
        web_ended = asyncio.create_task(web.wait())
        working = asyncio.create_task(self._keep_working())
        await asyncio.wait({told, web_ended, working}, return_when=asyncio.FIRST_COMPLETED)
        status = 0 if told.done() else 1
        for task in (told, working):
            task.cancel()
        await asyncio.gather(told, working, _end(web), return_exceptions=True)
        await web_ended
        return status

    async def _keep_working(self) -> None:
        while True:
            worker = await self._start("durably", "worker", "examples.fullstack.app:durably")
            print(f"Worker {worker.pid} is running. Kill it and watch the page: kill -9 {worker.pid}", flush=True)
            try:
                status = await worker.wait()
            except asyncio.CancelledError:
                await _end(worker)
                raise
            print(f"Worker {worker.pid} is gone (status {status}), starting another.", flush=True)
            # A worker that cannot even start must not be started in a tight loop.
            await asyncio.sleep(1)

    async def _start(self, module: str, *arguments: str) -> Process:
        words = ["-m", module, *arguments]
        # In sessions of their own, so that Ctrl-C comes here only and everything ends in order.
        return await asyncio.create_subprocess_exec(
            sys.executable, *words, cwd=settings.HERE.parents[1], env=self._environment, start_new_session=True
        )


async def _end(process: Process) -> None:
    # Told once, a worker lets its runs end; told again, it gives back what is left, for the next one to go on with.
    for tell in (process.terminate, process.terminate, process.kill):
        if process.returncode is not None:
            return
        tell()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), GRACE_SECONDS)


async def supervise(data: Path, port: int) -> int:
    """Run everything until SIGINT or SIGTERM."""
    stopping = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    return await Supervisor(data, port).run(stopping)


def main() -> None:
    """Build the page, prepare the folder, and supervise."""
    parser = argparse.ArgumentParser(prog="python -m examples.fullstack", description="Import CSV files, live.")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free port (default: 8000)")
    parser.add_argument("--data", type=Path, default=settings.DATA, help="folder of the database")
    options = parser.parse_args()
    try:
        build_page()
        options.data.mkdir(parents=True, exist_ok=True)
    except (BuildError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(asyncio.run(supervise(options.data.resolve(), options.port)))


if __name__ == "__main__":
    main()
