"""The Python side of the full-stack example; the page is driven by page.test.ts beside this file."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from examples.fullstack import tables
from examples.fullstack.jobs import ImportCsv, Imported, SummarizeCsv, import_csv, summarize_csv
from examples.fullstack.tables import NotACsvError

from durably.testing import FakeStep, crash_everywhere

ROOT = Path(__file__).resolve().parents[2]
TYPES = ROOT / "examples" / "fullstack" / "page" / "src" / "durably.gen.ts"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "DATABASE", tmp_path / "app.db")
    tables.create_tables()


def test_the_types_of_the_page_are_those_of_the_jobs() -> None:
    """Whoever changes a job writes its types again: durably types examples.fullstack.app:durably -o FILE."""
    checked = run("-m", "durably", "types", "examples.fullstack.app:durably", "-o", str(TYPES), "--check")

    assert checked.returncode == 0, checked.stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """The web process says which port, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run("-m", "examples.fullstack.web", port)

    assert ended.returncode == 1
    assert ended.stderr.strip().endswith("Choose another one with --port.")
    assert f"port {port}" in ended.stderr


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "people.csv is empty: the first line must name the columns."),
        (b"\n\n", "people.csv is empty: the first line must name the columns."),
        (b"name\n\xff", "people.csv is not UTF-8 text: byte 5 cannot be read."),
        (b'name\n"Ada', "people.csv is not a CSV file: unexpected end of data."),
    ],
)
def test_what_is_no_csv_file_is_refused(database: None, content: bytes, reason: str) -> None:
    """Nothing is kept of it."""
    with pytest.raises(NotACsvError, match=reason):
        tables.save_file("people.csv", content)

    assert tables.list_files() == []


async def test_an_import_bears_a_crash_anywhere(database: None) -> None:
    """S2: wherever the worker is lost, the answer and the rows are those of an import that was not disturbed."""
    file = tables.save_file("people.csv", b"name,age\nAda,36\nshort\nGrace,85\n")

    def forget_rows() -> None:
        with closing(sqlite3.connect(tables.DATABASE)) as connection, connection:
            connection.execute("DELETE FROM rows")

    report = await crash_everywhere(
        import_csv,
        ImportCsv(file=file.id, batch_size=2),
        observe=lambda: tables.imported_rows(file.id),
        reset=forget_rows,
    )

    report.assert_no_differences()
    assert tables.imported_rows(file.id) == [["Ada", "36"], ["Grace", "85"]]


async def test_a_row_of_another_length_is_skipped_and_told(database: None) -> None:
    """The log says which, counted from 1 as people do."""
    file = tables.save_file("people.csv", b"name,age\nAda,36\nshort\nGrace,85\n")
    step = FakeStep()

    assert await import_csv(step, ImportCsv(file=file.id, batch_size=2)) == Imported(rows=2, skipped=1)
    assert [log.message for log in step.logs] == [
        "3 rows with 2 columns",
        "Row 2 skipped: 1 cells instead of 2",
        "Imported 2 rows",
    ]


async def test_a_summary_tells_numbers_from_text(database: None) -> None:
    """What is compared as numbers is not compared as text: 9 is less than 36."""
    file = tables.save_file("people.csv", b"name,age,note\nAda,36,\nTim,9,\n")
    await import_csv(FakeStep(), ImportCsv(file=file.id))

    summary = await summarize_csv(FakeStep(), SummarizeCsv(file=file.id))

    assert [(column.kind, column.smallest, column.largest) for column in summary.columns] == [
        ("text", "Ada", "Tim"),
        ("number", "9", "36"),
        ("empty", None, None),
    ]


async def test_a_summary_needs_an_import(database: None) -> None:
    """The run fails with a sentence that says what to do."""
    file = tables.save_file("people.csv", b"name\nAda\n")

    with pytest.raises(LookupError, match="import it first"):
        await summarize_csv(FakeStep(), SummarizeCsv(file=file.id))
