"""The stored form of events, which other processes read: a JSON array of objects.

Unknown fields and unknown types are passed over when reading, so that processes of different versions can
share a database.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

from durably.core.clock import from_text, to_text
from durably.core.events import EVENT_CLASSES, DurablyEvent
from durably.core.runs import ProgressData

_RAW_SUFFIX: Final = "_json"


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return to_text(value)
    if isinstance(value, ProgressData):
        return asdict(value)
    raise TypeError(f"an event cannot hold a {type(value).__name__}")


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False, default=_plain).encode
_decode = json.JSONDecoder().decode


class _Shape:
    """How one event class is written: its plain fields, and those that are JSON text already."""

    def __init__(self, event_class: type[DurablyEvent]) -> None:
        names = [field.name for field in fields(event_class) if field.name != "sequence"]
        self.event_class: Any = event_class
        self.names = frozenset(names)
        self.plain = tuple(name for name in names if not name.endswith(_RAW_SUFFIX))
        self.raw = tuple(name for name in names if name.endswith(_RAW_SUFFIX))
        self.values = attrgetter(*self.plain)
        self.head = f'{{"type":"{event_class.type}",'

    def encode(self, event: DurablyEvent) -> str:
        body = _encode(dict(zip(self.plain, self.values(event), strict=True)))[1:-1]
        for name in self.raw:
            text = getattr(event, name)
            if text is not None:
                body += f',"{name}":{text}'
        return f"{self.head}{body}}}"

    def decode(self, record: dict[str, Any]) -> DurablyEvent:
        known = {name: value for name, value in record.items() if name in self.names}
        for name in self.raw:
            known[name] = _encode(known[name]) if name in known else None
        for name in ("timestamp", "lease_expires_at"):
            if name in known:
                known[name] = from_text(known[name])
        if "progress" in known:
            known["progress"] = ProgressData(**known["progress"])
        event: DurablyEvent = self.event_class(**known)
        return event


_SHAPES: Final = {name: _Shape(event_class) for name, event_class in EVENT_CLASSES.items()}


def encode_events(events: Iterable[DurablyEvent]) -> str:
    """Return `events` as one JSON text."""
    return "[" + ",".join([_SHAPES[event.type].encode(event) for event in events]) + "]"


def decode_events(text: str) -> list[DurablyEvent]:
    """Return the events that `text` holds."""
    return [_SHAPES[record["type"]].decode(record) for record in _decode(text) if record["type"] in _SHAPES]
