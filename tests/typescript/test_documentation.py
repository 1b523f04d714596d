"""docs/typescript.md: both programs run as printed, side by side."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, fences
from tests.typescript.actor import NODE_FOLDER

BLOCKS = {block["language"]: block["code"] for block in fences(ROOT / "docs" / "typescript.md")}


@pytest.fixture
def folder(tmp_path: Path, typescript_library: None) -> Path:
    (tmp_path / "worker.py").write_text(BLOCKS["python"])
    (tmp_path / "web.mjs").write_text(BLOCKS["js"])
    (tmp_path / "node_modules").symlink_to(NODE_FOLDER / "node_modules")
    return tmp_path


@pytest.fixture
def worker(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "worker.py"], cwd=folder, stdout=subprocess.DEVNULL) as process:
        until_migrated(folder / "jobs.db")
        yield process
        process.kill()


def until_migrated(database: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if database.exists():
            with closing(sqlite3.connect(database)) as connection:
                if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'durably_events'").fetchone():
                    return
        time.sleep(0.02)
    raise AssertionError("the worker made no database")


def test_typescript_prints_what_python_returned(folder: Path, worker: subprocess.Popen[bytes]) -> None:
    """D1: the worker is started, then the web application."""
    finished = subprocess.run(["node", "web.mjs"], cwd=folder, capture_output=True, text=True, timeout=60, check=False)

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == BLOCKS["text"]
    assert worker.poll() is None
