"""`POST /trigger`: what is refused, in which order, and what keys do (R3, R5, R6, R7)."""

import pytest

from durably import Durably
from tests.conftest import OpenDurably
from tests.http.asgi import Client
from tests.http.conftest import echo, greet, mounted


@pytest.fixture
async def durably(open_durably: OpenDurably) -> Durably:
    """An instance without a worker: what is triggered stays pending."""
    return await open_durably(echo, greet)


@pytest.mark.parametrize(
    "body", [{}, {"input": 1}, {"jobName": ""}, {"jobName": 5}, {"jobName": None}, [], "text", None]
)
async def test_a_trigger_must_name_its_job(client: Client, body: object) -> None:
    answer = await client.post("/trigger", body=str.encode(__import__("json").dumps(body)))

    assert (answer.status, answer.error) == (400, "jobName is required")


async def test_an_unknown_job(client: Client) -> None:
    answer = await client.post("/trigger", {"jobName": "nobody", "input": {}})

    assert (answer.status, answer.error) == (404, "Job not found: nobody")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"coalesce": "merge", "concurrencyKey": "k"}, "Invalid coalesce value: 'merge'. Valid values: 'skip'"),
        ({"coalesce": None, "concurrencyKey": "k"}, "Invalid coalesce value: 'null'. Valid values: 'skip'"),
        ({"coalesce": "skip"}, "coalesce requires concurrencyKey"),
        ({"idempotencyKey": ""}, "Invalid idempotencyKey '': must be text (without NUL) that is not empty"),
        ({"idempotencyKey": 5}, "Invalid idempotencyKey 5: must be text (without NUL) that is not empty"),
        ({"concurrencyKey": "a\0b"}, "Invalid concurrencyKey 'a\\x00b': must be text (without NUL) that is not empty"),
        ({"idempotencyKey": True}, "Invalid idempotencyKey true: must be text (without NUL) that is not empty"),
        ({"labels": ["a"]}, 'Invalid labels ["a"]: must map text to text'),
        ({"labels": {"None": None}}, "Invalid label 'None': null must be text (without NUL)"),
        ({"labels": {"org": 5}}, "Invalid label 'org': 5 must be text (without NUL)"),
        (
            {"labels": {"bad key": "x"}},
            (
                'Invalid label key "bad key": must contain only alphanumeric characters, dashes, underscores, dots, '
                "and slashes"
            ),
        ),
    ],
)
async def test_options_that_are_refused(client: Client, body: dict[str, object], text: str) -> None:
    """400, in the words of the wire: names are camelCase, and nothing was stored."""
    answer = await client.post("/trigger", {"jobName": "echo", "input": 1, **body})

    assert (answer.status, answer.error) == (400, text)
    assert (await client.get("/runs")).body == []


async def test_a_number_that_json_cannot_hold_is_refused_as_any_other_option(client: Client) -> None:
    """400: a reader of JSON takes it for infinity."""
    answer = await client.post("/trigger", body=b'{"jobName":"echo","input":1,"coalesce":1e999}')

    assert (answer.status, answer.error) == (400, "Invalid coalesce value: '\"inf\"'. Valid values: 'skip'")


async def test_a_repeated_trigger_is_answered_whatever_its_label_keys(client: Client) -> None:
    """Labels that are not text are refused before, bad label keys after the idempotency key is looked up."""
    body = {"jobName": "echo", "input": 1, "idempotencyKey": "k"}
    first = await client.post("/trigger", body)

    repeated = await client.post("/trigger", {**body, "labels": {"bad key": "x"}})
    refused = await client.post("/trigger", {**body, "labels": {"bad key": 5}})

    assert (repeated.status, repeated.body) == (200, {"runId": first.body["runId"], "disposition": "idempotent"})
    assert (refused.status, refused.error) == (400, "Invalid label 'bad key': 5 must be text (without NUL)")


async def test_an_input_must_be_given_and_valid(client: Client) -> None:
    """R3: also where the job takes anything, a missing input is a mistake."""
    missing = await client.post("/trigger", {"jobName": "echo"})
    assert (missing.status, missing.error) == (400, "input is required")

    wrong = await client.post("/trigger", {"jobName": "greet", "input": {"name": 7}})
    assert wrong.status == 400
    assert "input.name" in wrong.error


async def test_a_null_key_is_none(client: Client) -> None:
    """`idempotencyKey: null` is no key: two triggers make two runs."""
    body = {"jobName": "echo", "input": 1, "idempotencyKey": None, "concurrencyKey": None, "labels": None}

    first, second = await client.post("/trigger", body), await client.post("/trigger", body)

    assert first.body["runId"] != second.body["runId"]


async def test_the_same_idempotency_key_gives_the_same_run(client: Client) -> None:
    """R6: once per job."""
    first = await client.trigger("echo", 1, idempotencyKey="k")

    again = await client.post("/trigger", {"jobName": "echo", "input": 2, "idempotencyKey": "k"})
    other = await client.post("/trigger", {"jobName": "greet", "input": {"name": "Ada"}, "idempotencyKey": "k"})

    assert again.body == {"runId": first, "disposition": "idempotent"}
    assert other.body["disposition"] == "created"


async def test_one_pending_run_per_concurrency_key_and_job(client: Client) -> None:
    """R7: a second one is a 409 that tells what to do, or joins the first with `coalesce: 'skip'`."""
    first = await client.trigger("echo", 1, concurrencyKey='a "key"')

    conflict = await client.post("/trigger", {"jobName": "echo", "input": 2, "concurrencyKey": 'a "key"'})
    joined = await client.post(
        "/trigger", {"jobName": "echo", "input": 2, "concurrencyKey": 'a "key"', "coalesce": "skip"}
    )

    assert (conflict.status, conflict.error) == (
        409,
        (
            'A pending run already exists for concurrency key "a \\"key\\"" in job "echo". '
            "Use coalesce: 'skip' to return the existing run instead."
        ),
    )
    assert joined.body == {"runId": first, "disposition": "coalesced"}


async def test_the_content_type_is_not_looked_at(client: Client) -> None:
    answer = await client.post(
        "/trigger", body=b'{"jobName": "echo", "input": 1}', headers={"content-type": "text/plain"}
    )

    assert answer.status == 200


@pytest.mark.parametrize(
    "body", [b"", b"{oops", b"{} {}", b'{"a": NaN}', b"\xff\xfe", b'{"a": "\\ud800"}', b"[" * 100_000]
)
async def test_a_body_that_is_not_json(client: Client, body: bytes) -> None:
    answer = await client.post("/trigger", body=body)

    assert answer.status == 400
    assert answer.error.startswith("The request body is not valid JSON")


async def test_json_as_deep_as_is_accepted_can_be_stored_and_read(client: Client) -> None:
    """What passes the parser's limit passes everything behind it, or is refused with a 400."""
    for depth in (50, 150, 190, 198):
        nested = "[" * depth + "]" * depth
        answer = await client.post("/trigger", body=b'{"jobName": "echo", "input": %s}' % nested.encode())
        assert answer.status in (200, 400), answer.text
        if answer.status == 200:
            assert (await client.get(f"/run?runId={answer.body['runId']}")).status == 200


async def test_numbers_that_json_cannot_carry_back_are_refused(client: Client) -> None:
    """R3: 1e999 is a valid number of JSON, and an infinity in Python."""
    answer = await client.post("/trigger", body=b'{"jobName": "echo", "input": {"a": [1e999]}}')

    assert answer.status == 400
    assert "input.a[0]" in answer.error


async def test_a_body_over_the_limit(durably: Durably) -> None:
    """413, whether the length was announced or only shows while reading."""
    client = mounted(durably, max_body_size=100)
    body = b'{"jobName": "echo", "input": "%s"}' % (b"x" * 100)

    for headers in ({"content-length": str(len(body))}, {"content-length": "9" * 50}, {}):
        answer = await client.post("/trigger", body=body, headers=headers)
        assert (answer.status, answer.error) == (413, "The request body is too large: at most 100 bytes are accepted")
    # What is announced is not waited for.
    assert (await client.post("/trigger", body=b"", headers={"content-length": "9" * 50})).status == 413


async def test_a_body_that_stops_arriving(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """408: a client that falls silent is not waited for for ever."""
    monkeypatch.setattr("durably.http.request_data._MOST_SILENCE_SECONDS", 0)

    answer = await client.post("/trigger", body=b'{"jobName": ', stops=True)

    assert (answer.status, answer.error) == (408, "The request body stopped arriving: nothing came for 0 s")


async def test_a_long_error_text_is_cut(client: Client) -> None:
    """A refused megabyte is not sent back."""
    answer = await client.post("/trigger", {"jobName": "x" * 500_000, "input": 1})

    assert answer.status == 404
    assert len(answer.text) < 3_000
