"""The instance that the web process and the worker process make, each its own, on the same file."""

from examples.fullstack.jobs import import_csv, summarize_csv
from examples.fullstack.settings import DATABASE

from durably import create_durably, with_log_persistence

durably = create_durably(
    database=DATABASE,
    jobs={"import_csv": import_csv, "summarize_csv": summarize_csv},
    lease_duration=3,  # seconds: how long a run waits for a worker that was killed before another takes it
    lease_renew_interval=1,
    max_concurrent_runs=4,
    preserve_steps=True,  # so that the page can show the steps of a run that has ended
)
durably.use(with_log_persistence())
