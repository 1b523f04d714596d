"""The flights: what a row of the CSV file says, and the table that it goes to."""

import csv
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, TypeAdapter, ValidationError

TABLES = """
CREATE TABLE IF NOT EXISTS flights (
  row INTEGER PRIMARY KEY, month INT, day INT, departed TEXT, departure_delay INT, arrival_delay INT,
  carrier TEXT, flight INT, tail_number TEXT, origin TEXT, destination TEXT, miles INT);
CREATE TABLE IF NOT EXISTS batches (number INT, attempt INT, rows INT);
"""
INSERT_FLIGHT = f"INSERT OR REPLACE INTO flights VALUES ({', '.join('?' * 12)})"
REPORT = "SELECT carrier, count(*), avg(arrival_delay) FROM flights GROUP BY carrier ORDER BY count(*) DESC"


def known(text: str) -> str | None:
    """Return what is known: a cancelled or diverted flight has gaps, written NA."""
    return None if text == "NA" else text


def clock_time(text: str) -> str | None:
    """Return 517 as 05:17, and midnight, which is written 2400, as 00:00."""
    return None if text == "NA" else f"{int(text) // 100 % 24:02}:{int(text) % 100:02}"


Number = Annotated[int | None, BeforeValidator(known)]
Text = Annotated[str | None, BeforeValidator(known)]
Time = Annotated[str | None, BeforeValidator(clock_time)]


class Flight(NamedTuple):
    """A row of the file, by the names of its columns."""

    month: int
    day: int
    dep_time: Time
    dep_delay: Number
    arr_delay: Number
    carrier: str
    flight: int
    tailnum: Text
    origin: str
    dest: str
    distance: int


Row = list[str]
_FLIGHTS = TypeAdapter(list[Flight])


def version_of(path: str) -> str:
    """Return a name for the file as it is now: another one when it has changed. Raises `OSError`."""
    with Path(path).open() as file:
        return f"{path} of {os.fstat(file.fileno()).st_mtime}"


def read_batches(path: str, size: int) -> Iterator[list[Row]]:
    """Yield the rows of the file, `size` at a time, as text."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, strict=True)
        while batch := [[row[column] for column in Flight._fields] for row in islice(rows, size)]:
            yield batch


def parse(rows: Sequence[Row], first: int) -> list[Flight]:
    """Return the flights of rows, `first` being the number of the first. Raises `ValueError` naming row and column."""
    try:
        return _FLIGHTS.validate_python(rows)
    except ValidationError as error:
        wrong = error.errors()[0]
        row, column = wrong["loc"]
        raise ValueError(f"row {first + int(row)}, {Flight._fields[int(column)]}: {wrong['msg']}") from error


def create_tables(database: str) -> None:
    """Create the tables where they are missing."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.executescript(TABLES)


def write_flights(database: str, batch: int, attempt: int, first: int, rows: Sequence[Row]) -> int:
    """Write a batch, and a line that says so, in one transaction; return how many rows it had.

    A batch that is written again, after a crash before its checkpoint, goes over the rows it wrote before.
    """
    flights = [(number, *flight) for number, flight in enumerate(parse(rows, first), start=first)]
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        connection.executemany(INSERT_FLIGHT, flights)
        connection.execute("INSERT INTO batches VALUES (?, ?, ?)", (batch, attempt, len(flights)))
    return len(flights)


def delays_by_carrier(database: str) -> list[tuple[str, int, float | None]]:
    """Return carrier, flights and mean delay on arrival in minutes, the largest first."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(REPORT).fetchall()
