"""Flask, or any WSGI application: `flask --app examples.http.flask_app run`.

It triggers and reads; the runs execute in the process of `examples.http.worker`, on the same database.
"""

import asyncio
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

from examples.http.jobs import durably
from flask import Flask, abort, request
from flask.typing import ResponseReturnValue

from durably import ValidationError

ResultT = TypeVar("ResultT")

app = Flask(__name__)


@cache
def event_loop() -> asyncio.AbstractEventLoop:
    """Return the loop on which this process uses durably. Made on first use: servers fork before that."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="durably", daemon=True).start()
    asyncio.run_coroutine_threadsafe(durably.migrate(), loop).result()
    return loop


def wait_for(call: Coroutine[Any, Any, ResultT]) -> ResultT:
    return asyncio.run_coroutine_threadsafe(call, event_loop()).result(timeout=30)


@app.post("/imports")
def start_import() -> ResponseReturnValue:
    try:
        # What is no JSON is None here, and refused like any other input that is no import.
        run = wait_for(durably.jobs.import_csv.trigger(request.get_json(silent=True)))
    except ValidationError as error:
        return {"error": str(error)}, 400
    return {"run_id": run.id}, 202


@app.get("/imports/<run_id>")
def show_import(run_id: str) -> ResponseReturnValue:
    run = wait_for(durably.get_run(run_id))
    if run is None:
        abort(404)
    return {"status": run.status, "output": run.output}
