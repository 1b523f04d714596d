"""A process that is forked while the database is open, as `multiprocessing` does it by default on Linux."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_SECONDS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PROGRAM = """
import asyncio
import os
import sys

from durably import create_durably, define_job


@define_job(name="echo")
async def echo(step, input):
    return await step.run("echo", lambda: input)


def open_durably():
    return create_durably(database=f"sqlite:///{sys.argv[1]}", jobs={"echo": echo})


async def use(durably):
    try:
        await durably.migrate()
        await durably.jobs.echo.trigger(1)
        print(await durably.process_until_idle(), "executed", flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)


def in_fork(make):
    if (pid := os.fork()) == 0:
        asyncio.run(use(make()))
        os._exit(0)
    os.waitpid(pid, 0)


durably = open_durably()
in_fork(lambda: durably)
asyncio.run(durably.migrate())
asyncio.run(durably.get_runs())
in_fork(lambda: durably)
in_fork(open_durably)
asyncio.run(durably.close())
in_fork(open_durably)
"""


IN_MEMORY = """
import asyncio
import os
import sys

from durably import create_durably

asyncio.run(create_durably(database="sqlite://:memory:").migrate())
if os.fork() == 0:
    asyncio.run(create_durably(database=f"sqlite:///{sys.argv[1]}").migrate())
    print("migrated", flush=True)
    os._exit(0)
os.wait()
"""


def run(program: str, file: Path) -> subprocess.CompletedProcess[str]:
    """Run a program with the path of a database file."""
    return subprocess.run(
        [sys.executable, "-c", program, file], capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )


def test_a_database_in_memory_at_the_fork_keeps_nobody_from_a_new_file(tmp_path: Path) -> None:
    """D3: only the files that were open are refused."""
    ended = run(IN_MEMORY, tmp_path / "jobs.db")

    assert (ended.stdout, ended.stderr) == ("migrated\n", "")


def test_a_database_that_was_open_at_the_fork_is_refused(tmp_path: Path) -> None:
    """D3: the parent would remove the write-ahead log under the child."""
    ended = run(PROGRAM, tmp_path / "jobs.db")

    assert ended.returncode == 0, ended.stderr
    before, inherited, opened_anew, after = ended.stdout.splitlines()
    assert before == after == "1 executed"
    assert inherited == opened_anew
    assert "was open when this process was forked" in inherited
