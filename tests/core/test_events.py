"""E1, E4: every event survives the log that other processes read."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from durably.core.event_codec import decode_events, encode_events
from durably.core.events import EVENT_CLASSES, DurablyEvent, LogWriteEvent, RunProgressEvent, is_domain_event
from durably.core.runs import ProgressData

INSTANT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
SAMPLES: dict[str, Any] = {
    "timestamp": INSTANT,
    "lease_expires_at": INSTANT,
    "run_id": "run",
    "job_name": 'job "ü" %s',
    "labels": {"a": "100 %", "ü": "🚂"},
    "skipped_labels": {},
    "step_name": "step %d",
    "step_index": 3,
    "input_json": '{"a":[1,null,"%s"]}',
    "skipped_input_json": "null",
    "output_json": '"ü"',
    "data_json": "[1]",
    "lease_owner": "me",
    "progress": ProgressData(1, 2.5, "half"),
    "duration": 0.25,
    "error": "line\nbreak",
    "failed_step_name": "step",
    "level": "warn",
    "message": "tab\t\\ \x00",
    "context": "test",
}


def sample(event_class: type[Any], **changes: Any) -> DurablyEvent:
    names = [field.name for field in dataclasses.fields(event_class) if field.name != "sequence"]
    return event_class(**{name: changes.get(name, SAMPLES.get(name)) for name in names})


class TestTheStoredForm:
    @pytest.mark.parametrize("event_class", EVENT_CLASSES.values(), ids=EVENT_CLASSES)
    def test_every_event_comes_back_equal(self, event_class: type[Any]) -> None:
        """E4: all fields but the sequence, which belongs to an instance."""
        event = sample(event_class)

        (back,) = decode_events(encode_events([event]))

        assert back == event
        assert type(back) is event_class
        assert json.loads(encode_events([event]))[0]["type"] == event_class.type

    @pytest.mark.parametrize("event_class", EVENT_CLASSES.values(), ids=EVENT_CLASSES)
    def test_what_may_be_absent_comes_back_absent(self, event_class: type[Any]) -> None:
        """E1: None is not an empty text, and no output is not the output null."""
        absent = {
            field.name: None
            for field in dataclasses.fields(event_class)
            if "None" in str(field.type) and field.name != "sequence"
        }
        event = sample(event_class, **absent)

        assert decode_events(encode_events([event])) == [event]

    def test_events_keep_their_order(self) -> None:
        """E4: as one text."""
        events = [sample(each) for each in EVENT_CLASSES.values()]

        assert decode_events(encode_events(events)) == events

    def test_a_newer_process_may_write_more(self) -> None:
        """E4: unknown types and fields are passed over."""
        (record,) = json.loads(encode_events([sample(LogWriteEvent)]))
        text = json.dumps([{"type": "run:newer", "x": 1}, {**record, "newer": [1]}])

        assert decode_events(text) == [sample(LogWriteEvent)]

    def test_a_lone_surrogate_stops_nobody(self) -> None:
        """S7: what no database can write is replaced."""
        (back,) = decode_events(encode_events([sample(LogWriteEvent, message="file \udcff")]))

        assert isinstance(back, LogWriteEvent)
        assert back.message == "file ?"

    def test_progress_without_more_comes_back_without(self) -> None:
        """S7: what was not given is None."""
        event = sample(RunProgressEvent, progress=ProgressData(1))

        assert decode_events(encode_events([event])) == [event]


class TestKinds:
    def test_each_is_domain_or_operational(self) -> None:
        """E1: the six of a run's life, by name."""
        domain = {name for name, each in EVENT_CLASSES.items() if is_domain_event(sample(each))}

        assert domain == {"run:trigger", "run:coalesced", "run:complete", "run:fail", "run:cancel", "run:delete"}
        assert len(EVENT_CLASSES) == 15

    def test_json_is_decoded_when_someone_looks(self) -> None:
        """E1: input, output, data and what was skipped."""
        values = {
            (name, attribute): getattr(sample(each), attribute)
            for name, each in EVENT_CLASSES.items()
            for attribute in ("input", "output", "data", "skipped_input")
            if hasattr(each, attribute)
        }

        assert values == {
            ("run:trigger", "input"): {"a": [1, None, "%s"]},
            ("run:leased", "input"): {"a": [1, None, "%s"]},
            ("run:coalesced", "skipped_input"): None,
            ("run:complete", "output"): "ü",
            ("step:complete", "output"): "ü",
            ("log:write", "data"): [1],
        }
