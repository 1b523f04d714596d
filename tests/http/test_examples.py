"""The applications of examples/http, each in its own server process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ADDRESS = re.compile(r"running on (http://127\.0\.0\.1:\d+)", re.IGNORECASE)
UVICORN = ["-m", "uvicorn", "--port", "0", "--timeout-graceful-shutdown", "1"]
PAGE = "https://app.example.com"


@contextmanager
def serving(command: list[str], database: Path) -> Iterator[httpx.Client]:
    """Run a server until the end of the block."""
    environment = {**os.environ, "DURABLY_DATABASE_URL": f"sqlite:///{database}", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, *command], cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        try:
            said = ""
            while not (address := ADDRESS.search(said)):
                line = server.stderr.readline()
                assert line, f"the server ended: {said}"
                said += line
            with httpx.Client(base_url=address[1], timeout=30) as client:
                yield client
        finally:
            server.terminate()
            server.communicate(timeout=30)


def follow(client: httpx.Client, run_id: str, **options: Any) -> list[dict[str, Any]]:
    """Return the events of a run, to its end."""
    events = []
    with client.stream("GET", f"/api/durably/subscribe?runId={run_id}", **options) as stream:
        assert stream.status_code == 200
        for line in stream.iter_lines():
            if line.startswith("data: "):
                events.append(json.loads(line.removeprefix("data: ")))
                if events[-1]["type"] == "run:complete":
                    return events
    raise AssertionError(f"the stream ended before the run: {events}")


@pytest.mark.parametrize("module", ["fastapi_app", "starlette_app", "django_app"])
def test_a_route_triggers_and_the_handler_follows(module: str, tmp_path: Path) -> None:
    """A page would do the same: post to the application, then watch the run."""
    with serving([*UVICORN, f"examples.http.{module}:app"], tmp_path / "jobs.db") as client:
        started = client.post("/imports", json={"text": "a\nb\nc"})
        assert started.status_code == 202

        events = follow(client, started.json()["run_id"])
        listed = client.get("/api/durably/runs?jobName=import-csv").json()

    assert events[-1]["output"] == {"rows": 3}
    assert [run["status"] for run in listed] == ["completed"]


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ([*UVICORN, "examples.http.fastapi_app:app"], 422),
        ([*UVICORN, "examples.http.starlette_app:app"], 400),
        ([*UVICORN, "examples.http.django_app:app"], 400),
        (["-m", "flask", "--app", "examples.http.flask_app", "run", "--port", "0"], 400),
    ],
    ids=["fastapi", "starlette", "django", "flask"],
)
def test_input_that_is_no_import_is_the_fault_of_who_sent_it(command: list[str], status: int, tmp_path: Path) -> None:
    """R3: refused before anything is stored, and told to the client, which can mend it."""
    json_header = {"content-type": "application/json"}
    with serving(command, tmp_path / "jobs.db") as client:
        no_import = client.post("/imports", json={"csv": "a"})
        no_json = client.post("/imports", content=b"{", headers=json_header)
        no_text = client.post("/imports", content=b"\xff", headers=json_header)

    assert no_import.status_code == status
    assert "text" in no_import.text
    assert no_json.status_code == status
    assert no_text.status_code in (400, status)


def test_flask_triggers_what_a_worker_beside_it_executes(tmp_path: Path) -> None:
    """Two processes, one database; the page watches through the worker's handler (E4)."""
    flask = ["-m", "flask", "--app", "examples.http.flask_app", "run", "--port", "0"]
    with ExitStack() as servers:
        web = servers.enter_context(serving(flask, tmp_path / "jobs.db"))
        worker = servers.enter_context(serving([*UVICORN, "examples.http.worker:app"], tmp_path / "jobs.db"))
        started = web.post("/imports", json={"text": "a\nb"})
        assert started.status_code == 202
        run_id = started.json()["run_id"]

        with worker.stream("GET", f"/subscribe?runId={run_id}") as stream:
            events = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]

        assert events[-1]["output"] == {"rows": 2}
        assert web.get(f"/imports/{run_id}").json() == {"status": "completed", "output": {"rows": 2}}
        assert web.get("/imports/nobody").status_code == 404


@pytest.fixture(scope="module")
def browser_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    database = tmp_path_factory.mktemp("browser") / "jobs.db"
    with serving([*UVICORN, "examples.http.browser_app:app"], database) as client:
        yield client


ADA = {"cookie": "session=cookie-of-ada"}
BOB = {"cookie": "session=cookie-of-bob"}
TRIGGER = {"jobName": "import-csv", "input": {"text": "a"}, "labels": {"user": "ada"}}


def test_cors_answers_the_preflight_of_the_page_and_of_no_other(browser_app: httpx.Client) -> None:
    """The middleware around the handler answers OPTIONS; the handler itself never sees it."""
    asked = {"access-control-request-method": "DELETE", "access-control-request-headers": "last-event-id"}

    ours = browser_app.options("/api/durably/run", headers={"origin": PAGE, **asked})
    other = browser_app.options("/api/durably/run", headers={"origin": "https://evil.example", **asked})

    assert ours.status_code == 200
    assert ours.headers["access-control-allow-origin"] == PAGE
    assert ours.headers["access-control-allow-credentials"] == "true"
    assert other.status_code == 400
    assert "access-control-allow-origin" not in other.headers


def test_the_page_on_the_other_origin_may_trigger_and_follow(browser_app: httpx.Client) -> None:
    headers = {**ADA, "origin": PAGE, "sec-fetch-site": "cross-site"}

    answer = browser_app.post("/api/durably/trigger", json=TRIGGER, headers=headers)

    assert answer.headers["access-control-allow-origin"] == PAGE
    assert follow(browser_app, answer.json()["runId"], headers=headers)[-1]["output"] == {"rows": 1}


@pytest.mark.parametrize(
    "page", [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
def test_a_form_on_a_foreign_page_cannot_trigger(browser_app: httpx.Client, page: dict[str, str]) -> None:
    """CSRF: a form's request needs no preflight and brings the cookie; its origin gives it away."""
    as_a_form_sends = {**ADA, **page, "content-type": "text/plain"}

    answer = browser_app.post("/api/durably/trigger", content=json.dumps(TRIGGER), headers=as_a_form_sends)

    assert (answer.status_code, answer.text) == (403, "This page may not use the API")


def test_a_page_of_the_same_origin_and_a_program_may(browser_app: httpx.Client) -> None:
    own = {"origin": str(browser_app.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}

    assert browser_app.post("/api/durably/trigger", json=TRIGGER, headers={**ADA, **own}).status_code == 200
    assert browser_app.post("/api/durably/trigger", json=TRIGGER, headers=ADA).status_code == 200


def test_everybody_sees_their_own_runs_only(browser_app: httpx.Client) -> None:
    run_id = browser_app.post("/api/durably/trigger", json=TRIGGER, headers=ADA).json()["runId"]

    assert browser_app.get("/api/durably/runs", headers=BOB).json() == []
    assert browser_app.get(f"/api/durably/run?runId={run_id}", headers=BOB).status_code == 404
    assert browser_app.post("/api/durably/trigger", json=TRIGGER, headers=BOB).status_code == 403
    assert browser_app.get("/api/durably/runs").status_code == 401
