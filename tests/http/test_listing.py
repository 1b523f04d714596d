"""`GET /runs`: filters, pages, and what is wrong with them."""

import pytest

from durably import Durably
from tests.conftest import OpenDurably
from tests.http.asgi import Client
from tests.http.conftest import echo, greet, mounted
from tests.store_contract.foreign_writer import write

STATUSES = "pending, leased, completed, failed, cancelled"


@pytest.fixture
async def durably(open_durably: OpenDurably) -> Durably:
    """An instance without a worker: what is triggered stays pending."""
    return await open_durably(echo, greet)


@pytest.fixture
async def runs(durably: Durably) -> dict[str, str]:
    """Four runs, oldest first: two of `echo` with labels, one of `greet`, one cancelled."""
    client = mounted(durably)
    ids = {
        "first": await client.trigger("echo", 1, labels={"org": "a", "tier": "x"}),
        "second": await client.trigger("echo", 2, labels={"org": "b"}),
        "greeting": await client.trigger("greet", {"name": "Ada"}, labels={"org": "a"}),
        "cancelled": await client.trigger("echo", 3),
    }
    await client.post(f"/cancel?runId={ids['cancelled']}")
    return ids


async def listed(client: Client, runs: dict[str, str], query: str) -> list[str]:
    names = {run_id: name for name, run_id in runs.items()}
    answer = await client.get(f"/runs{query}")
    assert answer.status == 200, answer.text
    return [names[run["id"]] for run in answer.body]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["cancelled", "greeting", "second", "first"]),
        ("?jobName=greet", ["greeting"]),
        ("?jobName=greet&jobName=echo&status=pending", ["greeting", "second", "first"]),
        ("?jobName=", []),
        ("?jobName=nobody", []),
        ("?status=cancelled", ["cancelled"]),
        ("?status=cancelled&status=leased", ["cancelled"]),
        ("?label.org=a", ["greeting", "first"]),
        ("?label.org=a&label.tier=x", ["first"]),
        ("?label.org=a&label.org=b", ["second"]),
        ("?label.org=", []),
        ("?limit=2", ["cancelled", "greeting"]),
        ("?limit=2&offset=1", ["greeting", "second"]),
        ("?limit=0", []),
        ("?limit=", ["cancelled", "greeting", "second", "first"]),
        ("?offset=99999999999999999999999999", []),
        ("?limit=99999999999999999999999999&offset=3", ["first"]),
        ("?unknown=1", ["cancelled", "greeting", "second", "first"]),
    ],
)
async def test_filters(client: Client, runs: dict[str, str], query: str, expected: list[str]) -> None:
    """All filters must match; a repeated job or status is any of them; of a repeated label the last counts."""
    assert await listed(client, runs, query) == expected


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("status=running", f"Invalid status: running. Must be one of: {STATUSES}"),
        ("status=", f"Invalid status: empty value. Must be one of: {STATUSES}"),
        ("status=pending&status=nope", f"Invalid status: nope. Must be one of: {STATUSES}"),
        ("limit=abc", "Invalid limit: must be a non-negative integer"),
        ("limit=-1", "Invalid limit: must be a non-negative integer"),
        ("limit=1abc", "Invalid limit: must be a non-negative integer"),
        ("limit=1.5", "Invalid limit: must be a non-negative integer"),
        ("limit=%D9%A1", "Invalid limit: must be a non-negative integer"),
        ("offset=abc", "Invalid offset: must be a non-negative integer"),
        (
            "label.bad%20key=1",
            (
                'Invalid label key "bad key": must contain only alphanumeric characters, dashes, underscores, dots, '
                "and slashes"
            ),
        ),
        ("jobName=a%00b", "Invalid 'jobName': must not hold a NUL character"),
        ("label.org=a%00b", "Invalid 'label.org': must not hold a NUL character"),
        (
            "&".join(f"label.key{number}=x" for number in range(101)),
            "Invalid labels: 101 were given, at most 100 can be asked for",
        ),
        (
            "&".join(f"jobName=job{number}" for number in range(1001)),
            "Invalid jobName: 1001 were given, at most 1000 can be asked for",
        ),
    ],
)
async def test_a_filter_that_cannot_be_one_is_refused(client: Client, query: str, text: str) -> None:
    """400, with the texts that clients of the original know."""
    answer = await client.get(f"/runs?{query}")

    assert (answer.status, answer.error) == (400, text)


async def test_what_another_program_stored_does_not_spoil_the_list(
    durably: Durably, runs: dict[str, str], database: str
) -> None:
    """D1: half of a character, and nesting beyond what is stored here."""
    client = mounted(durably)
    deep = "[" * 300 + "1" + "]" * 300
    for name, text in (("first", r'"cut \ud83d"'), ("second", deep)):
        await write(database, f"UPDATE durably_runs SET input = '{text}' WHERE id = '{runs[name]}'")

    assert await listed(client, runs, "") == ["cancelled", "greeting", "second", "first"]
    assert (await client.get(f"/run?runId={runs['first']}")).body["input"] == "cut \ufffd"
    nested = (await client.get(f"/run?runId={runs['second']}")).body["input"]
    for _ in range(300):
        (nested,) = nested
    assert nested == 1
