"""The page "Getting started", section "Crash it": who follows it word by word sees what it says."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, examples

PAGE = ROOT / "docs" / "getting-started.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the program of the page."""
    (program,) = [example for example in examples() if example.page == PAGE and example.not_executed]
    (tmp_path / "slow.py").write_text(program.code)
    return tmp_path


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "slow.py"], cwd=folder, stdout=subprocess.PIPE, text=True)


def shown() -> list[str]:
    """Return what the page shows of each start, with any process id."""
    return [any_process(told) for told in re.findall(r"\$ python slow\.py\n(.*?)```", PAGE.read_text(), re.DOTALL)]


def any_process(text: str) -> str:
    return re.sub(r"kill -9 \d+", "kill -9 PID", text)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills with SIGKILL, which this system does not have")
def test_the_program_is_killed_and_goes_on_as_the_page_shows(folder: Path) -> None:
    """S2: what was committed before the kill is not executed again, the step in flight is."""
    first = start(folder)
    assert first.stdout is not None
    lines = []
    while "importing Grace\n" not in lines:
        lines.append(first.stdout.readline())
        assert lines[-1], f"the program ended early: {lines}"
    first.kill()
    first.communicate()
    second, _ = start(folder).communicate(timeout=60)
    third, _ = start(folder).communicate(timeout=60)

    assert [any_process("".join([*lines, "Killed\n"])), any_process(second)] == shown()
    assert third.splitlines()[1:] == ["8 imported"]
