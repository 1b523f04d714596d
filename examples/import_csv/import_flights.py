"""Import the flights that left New York in 2013. Kill it and start it again: it goes on where it was.

python import_flights.py flights.csv flights.db
"""

import argparse
import asyncio
import sys

from flights import create_tables, delays_by_carrier, read_batches, version_of, write_flights
from pydantic import BaseModel
from rich.progress import Progress

from durably import RunFailedError, StoreError, SyncStepContext, create_durably, define_job


class ImportFlights(BaseModel):
    csv: str
    database: str
    batch_size: int = 1000


def prepare(input: ImportFlights) -> int:
    create_tables(input.database)
    return sum(len(rows) for rows in read_batches(input.csv, input.batch_size))


@define_job(name="import-flights")
def import_flights(step: SyncStepContext, input: ImportFlights) -> int:
    total = step.run("prepare", prepare, input)
    done = 0
    for number, rows in enumerate(read_batches(input.csv, input.batch_size)):
        done += step.run(f"batch-{number}", write_flights, input.database, number, step.attempt, done, rows)
        step.progress(done, total)
    return done


async def main(csv: str, database: str, batch_size: int) -> None:
    # Asked for first: a file that cannot be read leaves no database behind.
    version = version_of(csv)
    durably = create_durably(
        database=f"sqlite:///{database}",
        jobs={"import_flights": import_flights},
        lease_duration=3,  # seconds: how long a start after a crash waits for the dead worker to come back
        lease_renew_interval=1,
    )
    with Progress() as bar:
        task = bar.add_task("Importing", total=None)
        async with durably:
            result = await durably.jobs.import_flights.trigger_and_wait(
                ImportFlights(csv=csv, database=database, batch_size=batch_size),
                idempotency_key=version,  # every start asks for the same run
                on_progress=lambda now: bar.update(task, completed=now.current, total=now.total),
            )
            bar.update(task, completed=result.output, total=result.output)
    print(f"{result.output:,} flights")
    for carrier, flights, delay in delays_by_carrier(database):
        late = "never arrived" if delay is None else f"{delay:+5.1f} minutes late on average"
        print(f"  {carrier}  {flights:7,}  {late}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Import flights. Kill it and start it again: it goes on where it was.")
    parser.add_argument("csv", help="the file to import")
    parser.add_argument("database", help="a SQLite file, made when it is missing")
    parser.add_argument("batch_size", type=int, nargs="?", default=1000, help="rows in one step (default: 1000)")
    options = parser.parse_args()
    try:
        asyncio.run(main(options.csv, options.database, options.batch_size))
    except (RunFailedError, StoreError) as error:
        sys.exit(f"The import failed: {error}")
    except OSError as error:
        sys.exit(f"{options.csv} cannot be read: {error.strerror}")
