"""The handler alone, with the worker: `uvicorn examples.http.worker:app`. The server starts and stops both."""

from examples.http.jobs import durably

from durably import create_durably_handler

app = create_durably_handler(durably)
