"""The handler alone, with the worker: `uvicorn examples.http.worker:app`. The server starts and stops both."""

from durably import create_durably_handler
from examples.http.jobs import durably

app = create_durably_handler(durably)
