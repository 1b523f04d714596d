"""Kill the import half-way, start it again, and count.

python demo.py [--csv FILE] [--batch-size ROWS] [--kill-at SHARE]
"""

import argparse
import asyncio
import csv
import sqlite3
import sys
import tempfile
from asyncio.subprocess import Process
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fetch import FetchError, fetch_flights
from rich.console import Console
from rich.table import Table

from durably import RunProgressEvent, create_durably

PROGRAM = Path(__file__).with_name("import_flights.py")
console = Console()


@dataclass(frozen=True)
class Proof:
    """What stands in the database in the end, and what should."""

    expected_rows: int
    rows: int
    batches: int
    batches_by_life: dict[int, int]
    written_twice: int

    @property
    def holds(self) -> bool:
        """Tell whether all rows are there once, and at most the batch in flight was written twice."""
        return self.rows == self.expected_rows and self.written_twice <= 1 and len(self.batches_by_life) == 2


async def run_demo(source: Path, folder: Path, batch_size: int, kill_at: float) -> Proof:
    """Import `source` with a worker that is killed, and one that is not."""
    database = folder / "flights.db"
    worker = await start_worker(source, database, batch_size)
    try:
        rows = await wait_for_share(database, kill_at, worker)
    finally:
        await kill(worker)
    console.show_cursor()
    console.print(f"\n[bold red]Killed[/] worker {worker.pid} with SIGKILL after {rows:,.0f} rows.\n")
    successor = await start_worker(source, database, batch_size)
    console.print("It takes over when the lease of the dead one has run out.")
    try:
        if await successor.wait() != 0:
            raise SystemExit(f"The second worker failed with status {successor.returncode}.")
    finally:
        await kill(successor)
    return collect_proof(source, database, batch_size)


async def kill(worker: Process) -> None:
    """Kill a worker that still runs, without a word of warning."""
    if worker.returncode is None:
        worker.kill()
    await worker.wait()


async def start_worker(source: Path, database: Path, batch_size: int) -> Process:
    """Start the program as it is, in a process of its own."""
    command = [str(PROGRAM), str(source), str(database), str(batch_size)]
    worker = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=PROGRAM.parent)
    console.print(f"[bold]Started[/] worker {worker.pid}.")
    return worker


async def wait_for_share(database: Path, share: float, worker: Process) -> float:
    """Return the rows imported when the run says that it has come so far; events of other processes are heard here."""
    reached: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    durably = create_durably(database=database)

    @durably.on("run:progress")
    def look(event: RunProgressEvent) -> None:
        now = event.progress
        if now.total and now.current >= share * now.total and not reached.done():
            reached.set_result(now.current)

    await durably.migrate()
    ended = asyncio.create_task(worker.wait())
    either: set[asyncio.Future[Any]] = {ended, reached}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    await durably.close()
    if ended.done():
        raise SystemExit("The first worker ended before it could be killed: take a larger file or smaller batches.")
    ended.cancel()
    return reached.result()


def collect_proof(source: Path, database: Path, batch_size: int) -> Proof:
    """Count what is in the file and what is in the database."""
    with source.open(newline="", encoding="utf-8") as file:
        expected = sum(1 for _ in csv.reader(file)) - 1
    with closing(sqlite3.connect(database)) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM flights").fetchone()
        lives = connection.execute("SELECT attempt, count(*) FROM batches GROUP BY attempt").fetchall()
        twice = connection.execute("SELECT number FROM batches GROUP BY number HAVING count(*) > 1").fetchall()
    return Proof(expected, rows, -(-expected // batch_size), dict(lives), len(twice))


def show(proof: Proof) -> None:
    """Print the proof as a table."""
    table = Table(title="What the crash cost", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    table.add_row("rows in the file", f"{proof.expected_rows:,}")
    table.add_row("rows in the table, each once", f"{proof.rows:,}")
    table.add_row("steps: batches to write", f"{proof.batches:,}")
    for life, batches in proof.batches_by_life.items():
        table.add_row(f"steps executed in life {life}", f"{batches:,}")
    table.add_row("steps executed twice (at most the one in flight)", f"{proof.written_twice:,}")
    console.print(table)


def main() -> None:
    """Run the demo in a folder that is gone afterwards."""
    parser = argparse.ArgumentParser(description="Kill an import half-way, start it again, and count.")
    parser.add_argument("--csv", type=Path, help="a file of flights (default: the real one, downloaded once)")
    parser.add_argument("--batch-size", type=int, default=1000, help="rows in one step (default: 1000)")
    parser.add_argument(
        "--kill-at", type=float, default=0.5, help="share of the rows after which to kill (default: 0.5)"
    )
    options = parser.parse_args()
    try:
        source = options.csv or fetch_flights()
    except FetchError as error:
        raise SystemExit(str(error)) from None
    with tempfile.TemporaryDirectory(prefix="durably-demo-") as folder:
        proof = asyncio.run(run_demo(source.resolve(), Path(folder), options.batch_size, options.kill_at))
    show(proof)
    if not proof.holds:
        raise SystemExit("This should not have happened: the table above is not what durably promises.")


if __name__ == "__main__":
    main()
