"""A program that uses the TypeScript library, started as a process of its own."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NODE_FOLDER = Path(__file__).parent / "node"


def install_typescript_library() -> None:
    """Bring the packages of the lock file to `node/node_modules`, unless they are there."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs Node.js with npm, to run the TypeScript library")
    installed = NODE_FOLDER / "node_modules" / ".package-lock.json"
    wanted = NODE_FOLDER / "package-lock.json"
    if installed.is_file() and installed.stat().st_mtime >= wanted.stat().st_mtime:
        return
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund"],
        cwd=NODE_FOLDER,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class TypeScriptProgram:
    """Takes commands, one at a time; see `node/actor.mjs`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    @staticmethod
    async def start(database: str, *options: str) -> TypeScriptProgram:
        process = await asyncio.create_subprocess_exec(
            "node",
            "actor.mjs",
            database,
            *options,
            cwd=NODE_FOLDER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**20,
        )
        return TypeScriptProgram(process)

    async def do(self, command: str, *arguments: Any) -> Any:
        """Return what a command returned; an error of the library fails the test with its message."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        async with self._turn:
            stdin.write(json.dumps([command, *arguments]).encode() + b"\n")
            await stdin.drain()
            answer = json.loads(await stdout.readline())
        if "error" in answer:
            raise AssertionError(f"{command}: {answer['error']}")
        return answer["ok"]

    async def do_last(self, command: str) -> None:
        """Give a command in which the program dies."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(json.dumps([command]).encode() + b"\n")
        await stdin.drain()
        await self._process.wait()

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), timeout=20)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
