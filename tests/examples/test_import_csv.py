"""The import of the examples: real rows, odd ones among them, and a worker that is killed half-way."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "import_csv"
SLICE = Path(__file__).with_name("flights.csv")


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *map(str, command)]
    return subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, timeout=100, check=False
    )


def select(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def without_bar(output: str) -> Sequence[str]:
    return [line for line in output.splitlines() if not line.startswith("Importing")]


def test_a_slice_is_imported_with_its_gaps_and_odd_times(tmp_path: Path) -> None:
    """NA becomes NULL, 2400 midnight, and a flight that never left still counts."""
    database = tmp_path / "flights.db"

    finished = run(EXAMPLE / "import_flights.py", SLICE, database, 10)

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.endswith("OO        2  +51.0 minutes late on average\n")
    assert select(database, "SELECT count(*), max(row) FROM flights") == [(45, 44)]
    assert select(database, "SELECT count(*) FROM flights WHERE departed IS NULL") == [(6,)]
    assert select(database, "SELECT count(*) FROM flights WHERE departed NOTNULL AND arrival_delay IS NULL") == [(3,)]
    assert select(database, "SELECT departed FROM flights WHERE departed < '00:10' ORDER BY 1") == [
        ("00:00",),
        ("00:00",),
        ("00:02",),
        ("00:08",),
    ]
    assert select(database, "SELECT count(*) FROM batches WHERE attempt = 1") == [(5,)]


def test_a_second_start_finds_the_run_that_ended(tmp_path: Path) -> None:
    """R6: the same key gives the same run: nothing is imported again, the answer is the same."""
    database = tmp_path / "flights.db"
    first = run(EXAMPLE / "import_flights.py", SLICE, database, 10)

    second = run(EXAMPLE / "import_flights.py", SLICE, database, 10)

    assert second.returncode == 0, second.stderr
    assert without_bar(second.stdout) == without_bar(first.stdout)
    assert select(database, "SELECT count(*) FROM batches") == [(5,)]


def test_a_row_that_is_no_flight_is_named(tmp_path: Path) -> None:
    """The batches before a bad row stay, its own is not written at all; a mended file is imported."""
    lines = SLICE.read_text().splitlines()
    lines[15] = lines[15].replace("2013,1,1", "2013,January,1")
    broken = tmp_path / "broken.csv"
    broken.write_text("\n".join(lines))
    database = tmp_path / "flights.db"

    finished = run(EXAMPLE / "import_flights.py", broken, database, 10)

    assert finished.returncode == 1
    assert finished.stderr.startswith("The import failed: row 14, month: Input should be a valid integer")
    assert select(database, "SELECT count(*) FROM flights") == [(10,)]

    broken.write_text(SLICE.read_text())

    assert run(EXAMPLE / "import_flights.py", broken, database, 10).returncode == 0
    assert select(database, "SELECT count(*) FROM flights") == [(45,)]


def test_a_file_that_is_not_there_is_named_and_leaves_no_database(tmp_path: Path) -> None:
    """A mistyped path is one line, not a traceback."""
    finished = run(EXAMPLE / "import_flights.py", tmp_path / "flihgts.csv", tmp_path / "flights.db")

    assert finished.returncode == 1
    assert finished.stderr == f"{tmp_path / 'flihgts.csv'} cannot be read: No such file or directory\n"
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True)
class Demo:
    """What the demo told, and what it left behind."""

    told: dict[str, int]
    left: list[Path]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo on the slice, again and again: a file long enough to be killed in the middle."""
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("kills with SIGKILL, which this system does not have")
    header, *rows = SLICE.read_text().splitlines()
    file = tmp_path_factory.mktemp("source") / "long.csv"
    file.write_text("\n".join([header, *(rows * 600)]) + "\n")
    folder = tmp_path_factory.mktemp("temporary")

    finished = run(EXAMPLE / "demo.py", "--csv", file, "--batch-size", 50, "--kill-at", 0.1, TMPDIR=str(folder))

    assert finished.returncode == 0, finished.stdout + finished.stderr
    found = re.findall(r"│ (.+?) │ +([\d,]+) │", finished.stdout)
    return Demo({name.strip(): int(number.replace(",", "")) for name, number in found}, list(folder.iterdir()))


def test_the_demo_kills_a_worker_and_loses_nothing(demo: Demo) -> None:
    """S2: what was finished before the kill is not executed again; at most the step in flight is."""
    first, second = demo.told["steps executed in life 1"], demo.told["steps executed in life 2"]
    twice = demo.told["steps executed twice (at most the one in flight)"]

    assert demo.told["rows in the file"] == demo.told["rows in the table, each once"] == 27_000
    assert first >= 54
    assert second > 0
    assert first + second == 540 + twice
    assert twice <= 1


def test_the_demo_leaves_nothing_behind(demo: Demo) -> None:
    """Its database lives in a folder that is gone with it."""
    assert demo.left == []
