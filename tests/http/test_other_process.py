"""A run that executes in another process reaches the streams of this one, in order (E4)."""

import asyncio
import sys
from pathlib import Path

from durably import create_durably_handler
from tests.conftest import OpenDurably
from tests.contract.conftest import REPOSITORY
from tests.contract.jobs import JOBS
from tests.http.asgi import Client


async def test_events_of_another_process_arrive_whole_and_in_order(open_durably: OpenDurably, tmp_path: Path) -> None:
    """The other process works; here the run is only triggered and watched, on both streams."""
    database = f"sqlite:///{tmp_path / 'shared.db'}"
    watching = await open_durably(*JOBS.values(), database=database)
    client = Client(create_durably_handler(watching), base="")
    command = [sys.executable, "-m", "tests.contract.server", "--port", "0", "--database", database]

    async with client.stream("/runs/subscribe") as everything:
        run_id = await client.trigger("import-csv", {"filename": "3.csv"}, labels={"org": "a"})
        async with client.stream(f"/subscribe?runId={run_id}") as stream:
            server = await asyncio.create_subprocess_exec(*command, cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE)
            try:
                events = await stream.until_end()
            finally:
                server.terminate()
                await server.communicate()
        await everything.until_event("run:complete", runId=run_id)

    names = [event["stepName"] for event in events if event.type == "step:complete"]
    assert names == ["parse", "import-0", "import-1", "import-2"]
    assert [event["message"] for event in events if event.type == "log:write"] == [
        "import started", "parsed 3 rows", "first row", "import finished",
    ]  # fmt: skip
    assert (events[0].type, events[-1].type, events[-1]["output"]) == ("run:leased", "run:complete", {"count": 3})
    sequences = [event["sequence"] for event in events if event.type != "run:progress"]
    assert sequences == sorted(sequences)
    assert everything.types()[0] == "run:trigger"
