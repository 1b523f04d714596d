"""The application's own tables, beside those of durably in the same file: uploaded files, and the rows imported."""

import csv
import io
import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass

from examples.fullstack.settings import DATABASE

_TABLES = """
CREATE TABLE IF NOT EXISTS files (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, columns TEXT NOT NULL, rows INT NOT NULL, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rows (file TEXT, number INT, cells TEXT NOT NULL, PRIMARY KEY (file, number)) WITHOUT ROWID;
"""
_BUSY_SECONDS = 30

Row = list[str]


class NotACsvError(ValueError):
    """An uploaded file that cannot be imported; the message says why."""


@dataclass(frozen=True)
class File:
    """An uploaded file, without its content."""

    id: str
    name: str
    columns: list[str]
    rows: int

    def to_json(self) -> dict[str, object]:
        """Return what the page is told."""
        return asdict(self)


@contextmanager
def _transaction() -> Iterator[sqlite3.Connection]:
    # The timeout is how long to wait for another process that is writing.
    with closing(sqlite3.connect(DATABASE, timeout=_BUSY_SECONDS)) as connection, connection:
        yield connection


def create_tables() -> None:
    """Create the tables where they are missing."""
    with _transaction() as connection:
        connection.executescript(_TABLES)


def save_file(name: str, content: bytes) -> File:
    """Keep an uploaded file. Raises `NotACsvError`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotACsvError(f"{name} is not UTF-8 text: byte {error.start} cannot be read.") from error
    columns, rows = _parse(name, text)
    file = File(secrets.token_hex(8), name, columns, len(rows))
    with _transaction() as connection:
        connection.execute(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?)", (file.id, name, json.dumps(columns), file.rows, text)
        )
    return file


def _parse(name: str, text: str) -> tuple[Row, list[Row]]:
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise NotACsvError(f"{name} is not a CSV file: {error}.") from error
    except ValueError as error:
        raise NotACsvError(f"{name} is empty: the first line must name the columns.") from error
    return header, rows


def list_files() -> list[File]:
    """Return the uploaded files, the latest first."""
    with _transaction() as connection:
        found = connection.execute("SELECT id, name, columns, rows FROM files ORDER BY rowid DESC").fetchall()
    return [File(id, name, json.loads(columns), rows) for id, name, columns, rows in found]


def rows_of_file(file: str) -> tuple[Row, list[Row]]:
    """Return the header and the rows of an uploaded file. Raises `LookupError` when there is none of that id."""
    with _transaction() as connection:
        found = connection.execute("SELECT name, content FROM files WHERE id = ?", (file,)).fetchone()
    if found is None:
        raise LookupError(f"There is no uploaded file {file}.")
    return _parse(*found)


def write_rows(file: str, rows: Mapping[int, Row]) -> None:
    """Write rows under their numbers, in one transaction: to write them again changes nothing."""
    numbered = [(file, number, json.dumps(row)) for number, row in rows.items()]
    with _transaction() as connection:
        connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", numbered)


def imported_rows(file: str) -> list[Row]:
    """Return the rows that were imported from a file, in its order."""
    with _transaction() as connection:
        found = connection.execute("SELECT cells FROM rows WHERE file = ? ORDER BY number", (file,))
        return [json.loads(cells) for (cells,) in found]
