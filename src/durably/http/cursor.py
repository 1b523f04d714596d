"""The `id:` of an event stream: how far a client has come in the log, and from where to read on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from durably.core.store import Position

_FORM: Final = re.compile(r"([0-9]{1,18})\.([0-9]{1,19})(?:~([0-9]{1,18})\.([0-9]{1,19}))?\Z")
_EVENTS_PER_ROW: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything up to `position` was sent, but for progress that was held back since `held_since`."""

    position: Position
    held_since: Position | None = None

    @staticmethod
    def of(text: str) -> Cursor | None:
        """Return the cursor that a client sent back; None for what no stream of ours gave it.

        >>> Cursor.of("17.2")
        Cursor(position=Position(row=17, place=2), held_since=None)
        """
        match = _FORM.match(text)
        if match is None:
            return None
        row, place, held_row, held_place = match.groups()
        position = Position(int(row), int(place))
        held = None if held_row is None else Position(int(held_row), int(held_place))
        return None if held is not None and held > position else Cursor(position, held)

    def __str__(self) -> str:
        text = f"{self.position.row}.{self.position.place}"
        return text if self.held_since is None else f"{text}~{self.held_since.row}.{self.held_since.place}"

    @property
    def start(self) -> Position:
        """Return the position after which the log must be read to miss nothing."""
        if self.held_since is None:
            return self.position
        return Position(self.held_since.row, self.held_since.place - 1)


def sequence_at(position: Position) -> int:
    """Return a number that goes up with the position, the same in every process and after a reconnect."""
    return position.row * _EVENTS_PER_ROW + min(position.place + 1, _EVENTS_PER_ROW - 1)
