"""Processes that live, die and are suspended at the test's word."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.crash.plan import Plan

ROOT: Final = Path(__file__).parents[2]
PATIENCE_SECONDS: Final = 60.0


class Process:
    """A process that follows a plan."""

    def __init__(self, pid: int, ended: asyncio.Future[int]) -> None:
        self.pid = pid
        self._ended = ended

    @property
    def is_alive(self) -> bool:
        return not self._ended.done()

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended: its id may belong to another by now."""
        if self.is_alive:
            os.kill(self.pid, number)

    async def ended(self) -> int:
        """Return the exit code once it has ended; minus the number of the signal that ended it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await asyncio.shield(self._ended)

    async def kill(self) -> int:
        """Kill it and return its exit code, once it is gone."""
        self.signal(signal.SIGKILL)
        return await self.ended()

    async def suspended(self) -> None:
        """Return when it has suspended itself."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.is_alive and _state_of(self.pid) != "T":
                await asyncio.sleep(0.002)
        assert self.is_alive, f"process {self.pid} ended with {self._ended.result()} instead of suspending itself"


class Processes:
    """Starts processes; all that are left when it is closed are killed. `errors` is where their stderr goes."""

    def __init__(self, errors: Path) -> None:
        self.errors = errors
        self._server: asyncio.subprocess.Process
        self._starting: deque[asyncio.Future[Process]] = deque()
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._listening: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        with self.errors.open("ab") as errors:
            self._server = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.crash.worker",
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        await self._server.wait()
        await self._listening

    async def start(self, plan: Plan) -> Process:
        """Start a process and return it once it lives."""
        assert self._server.stdin is not None
        starting: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        self._starting.append(starting)
        self._server.stdin.write(plan.to_json().encode() + b"\n")
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await starting

    async def run(self, plan: Plan) -> int:
        """Start a process and return its exit code once it has ended."""
        return await (await self.start(plan)).ended()

    def told(self) -> str:
        """Return what the processes wrote to stderr."""
        return self.errors.read_text(errors="replace")

    async def _listen(self) -> None:
        assert self._server.stdout is not None
        async for line in self._server.stdout:
            match line.decode().split():
                case ["started", pid]:
                    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
                    self._ended[int(pid)] = ended
                    self._starting.popleft().set_result(Process(int(pid), ended))
                case ["ended", pid, status]:
                    self._ended.pop(int(pid)).set_result(int(status))


def _state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "gone"
