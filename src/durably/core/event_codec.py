"""The stored form of events, which other processes read: a JSON array of objects.

Unknown fields and unknown types are passed over when reading, so that processes of different versions can
share a database.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from json.encoder import encode_basestring as _quote
from operator import attrgetter
from typing import Any, Final

from durably.core.clock import from_text, to_text
from durably.core.events import (
    COMMITTED_EVENTS,
    EVENT_CLASSES,
    WAKING_EVENTS,
    DurablyEvent,
    RunCompleteEvent,
    RunEvent,
    RunLeasedEvent,
    RunTriggerEvent,
    StepCompleteEvent,
    StepStartEvent,
)
from durably.core.json_values import as_json, compact_encoder, decode_json
from durably.core.runs import ProgressData
from durably.core.store import Position, Recorded, Source

_RAW_SUFFIX: Final = "_json"
_QUOTED_SUFFIX: Final = "_text"
_NOT_STORED: Final = "sequence"
_TIMESTAMP: Final = "timestamp"
_ABOUT_RUN: Final = ("run_id", "job_name", "labels")
_RUNS_REMEMBERED: Final = 4_096

_encode = compact_encoder()

log = logging.getLogger("durably")


def _encode_labels(labels: dict[str, str]) -> str:
    return _encode(labels) if labels else "{}"


_ENCODERS: Final[dict[str, Callable[[Any], str]]] = {
    "str": _quote,
    "LogLevel": _quote,
    "int": str,
    "float": repr,
    "datetime": lambda instant: f'"{to_text(instant)}"',
    "ProgressData": lambda progress: _encode(asdict(progress)),
}
"""How a field is written, by its annotation; what is not here is written as any JSON value."""


_remembered: dict[str, tuple[str, dict[str, str], str]] = {}


def _about_run(event: RunEvent) -> str:
    """Return the members that all events of a run have in common; they are written once per run."""
    found = _remembered.get(event.run_id)
    if found is not None and found[0] == event.job_name and found[1] == event.labels:
        return found[2]
    text = (
        f',"run_id":{_quote(event.run_id)},"job_name":{_quote(event.job_name)},"labels":{_encode_labels(event.labels)}'
    )
    if len(_remembered) >= _RUNS_REMEMBERED:
        _remembered.clear()
    _remembered[event.run_id] = (event.job_name, dict(event.labels), text)
    return text


class _Shape:
    """How one event class is written: its plain fields, and those that are JSON text already."""

    def __init__(self, event_class: type[DurablyEvent]) -> None:
        stored = [field for field in fields(event_class) if field.name != _NOT_STORED]
        plain = [field for field in stored if not field.name.endswith(_RAW_SUFFIX)]
        self.event_class: Any = event_class
        self.names = frozenset(field.name for field in stored)
        self.raw = tuple(field.name for field in stored if field.name.endswith(_RAW_SUFFIX))
        if issubclass(event_class, RunEvent):
            plain = [field for field in plain if field.name not in _ABOUT_RUN]
        # The timestamp is there always, so that this gives a tuple of at least two.
        self.values = attrgetter(*[field.name for field in plain], _TIMESTAMP)
        self.encoders = tuple(_ENCODERS.get(str(field.type), _encode) for field in plain)
        members = [f'"type":"{event_class.type}"', *(f'"{field.name}":%s' for field in plain)]
        self.template = "{" + ",".join(members) + "%s%s}"

    def encode(self, event: DurablyEvent) -> str:
        values = [encode(value) for encode, value in zip(self.encoders, self.values(event), strict=False)]
        about = _about_run(event) if isinstance(event, RunEvent) else ""
        return self.template % (*values, about, self._raw_members(event) if self.raw else "")

    def _raw_members(self, event: DurablyEvent) -> str:
        # They stand at the end because one that is absent leaves no member.
        return "".join([f',"{name}":{text}' for name in self.raw if (text := getattr(event, name)) is not None])

    def decode(self, record: dict[str, Any]) -> DurablyEvent:
        known = {name: value for name, value in record.items() if name in self.names}
        for name in self.raw:
            # Quoted by a store that cannot tell whether it is JSON.
            quoted = record.get(name.removesuffix(_RAW_SUFFIX) + _QUOTED_SUFFIX)
            if quoted is not None:
                known[name] = as_json(quoted)
            else:
                known[name] = _encode(known[name]) if name in known else None
        for name in ("timestamp", "lease_expires_at"):
            if name in known:
                known[name] = from_text(known[name])
        if "progress" in known:
            known["progress"] = ProgressData(**known["progress"])
        event: DurablyEvent = self.event_class(**known)
        return event


_SHAPES: Final = {name: _Shape(event_class) for name, event_class in EVENT_CLASSES.items()}


# What every step and every run that succeeds writes, as its shape does but in a third of the time.


def _encode_step_start(event: StepStartEvent) -> str:
    return (
        f'{{"type":"step:start","timestamp":"{to_text(event.timestamp)}","step_name":{_quote(event.step_name)},'
        f'"step_index":{event.step_index}{_about_run(event)}}}'
    )


def _encode_step_complete(event: StepCompleteEvent) -> str:
    output = "" if event.output_json is None else f',"output_json":{event.output_json}'
    return (
        f'{{"type":"step:complete","timestamp":"{to_text(event.timestamp)}","step_name":{_quote(event.step_name)},'
        f'"step_index":{event.step_index},"duration":{event.duration!r}{_about_run(event)}{output}}}'
    )


def _encode_trigger(event: RunTriggerEvent) -> str:
    return (
        f'{{"type":"run:trigger","timestamp":"{to_text(event.timestamp)}","run_id":{_quote(event.run_id)},'
        f'"job_name":{_quote(event.job_name)},"labels":{_encode_labels(event.labels)},"input_json":{event.input_json}}}'
    )


def _encode_leased(event: RunLeasedEvent) -> str:
    return (
        f'{{"type":"run:leased","timestamp":"{to_text(event.timestamp)}","lease_owner":{_quote(event.lease_owner)},'
        f'"lease_expires_at":"{to_text(event.lease_expires_at)}"{_about_run(event)},"input_json":{event.input_json}}}'
    )


def _encode_complete(event: RunCompleteEvent) -> str:
    output = "" if event.output_json is None else f',"output_json":{event.output_json}'
    return (
        f'{{"type":"run:complete","timestamp":"{to_text(event.timestamp)}","duration":{event.duration!r}'
        f"{_about_run(event)}{output}}}"
    )


_BY_TYPE: Final[dict[str, Callable[[Any], str]]] = {
    **{name: shape.encode for name, shape in _SHAPES.items()},
    StepStartEvent.type: _encode_step_start,
    StepCompleteEvent.type: _encode_step_complete,
    RunTriggerEvent.type: _encode_trigger,
    RunLeasedEvent.type: _encode_leased,
    RunCompleteEvent.type: _encode_complete,
}


def encode_events(events: Iterable[DurablyEvent]) -> str:
    """Return `events` as one JSON text."""
    text = f"[{','.join([_BY_TYPE[event.type](event) for event in events])}]"
    # One message with a lone surrogate, as a file name can hold, must not stop every event and commit after it.
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def decode_row(row: int, text: str, source: Source, *, is_listening: bool = True) -> list[Recorded]:
    """Return the events of a row of the log with their positions; unless `is_listening` those that wake somebody."""
    if not is_listening and '"type":"run:' not in text:
        return []
    wanted = _SHAPES.keys() if is_listening else WAKING_EVENTS
    return [
        Recorded(Position(row, place), _SHAPES[record["type"]].decode(record), source)
        for place, record in enumerate(_records(text))
        if record["type"] in wanted
    ]


def decode_own_row(row: int, text: str) -> list[Recorded]:
    """Return the events of a row that this process wrote itself, but could not deliver when it was committed."""
    return [
        recorded._replace(source="committed" if recorded.event.type in COMMITTED_EVENTS else "announced")
        for recorded in decode_row(row, text, "announced")
    ]


def decode_events(text: str) -> list[DurablyEvent]:
    """Return the events that `text` holds."""
    return [_SHAPES[record["type"]].decode(record) for record in _records(text) if record["type"] in _SHAPES]


def _records(text: str) -> list[dict[str, Any]]:
    """Return the records of a row; none where it is not JSON, so that nobody stands still before it for ever."""
    try:
        records: list[dict[str, Any]] = decode_json(text)
    except ValueError:
        # A store that writes events in SQL puts in the labels of a run as they are, whoever wrote them.
        log.warning("a row of the event log is not JSON and is passed over: %.200s", text)
        return []
    return records
