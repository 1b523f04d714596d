"""PostgreSQL through asyncpg: any number of machines share one database."""

from durably.core.clock import Clock
from durably.stores.postgres.options import PostgresOptions
from durably.stores.postgres.store import PostgresStore


def open_postgres(url: str, clock: Clock) -> PostgresStore:
    """Return the store for a `postgresql://` URL; nothing is connected yet.

    The URL is that of libpq, with these parameters of our own behind the `?`: `pool_size`, `schema`,
    `pgbouncer`, `direct` and `command_timeout`. Raises `ValidationError` for a value that none of them takes.
    """
    return PostgresStore(PostgresOptions.parse(url), clock)
