"""Ids that sort by the moment they were made."""

import os
import threading
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
_HALF_BITS: Final = 40


class UlidFactory:
    """Makes ULIDs that strictly increase within the process, also when the clock stands or goes back."""

    def __init__(self) -> None:
        self._second_text = ""
        self._second_chance = ""
        self._prefix = ""
        self._low = 0
        self.begin_anew()

    def begin_anew(self) -> None:
        """Share nothing with the process that this one was forked from: neither what comes next nor a held lock."""
        self._lock = threading.Lock()
        self._milliseconds = -1
        self._second = -1

    def __call__(self, milliseconds: int) -> str:
        """Return the next id, for an instant given in milliseconds since 1970."""
        with self._lock:
            if milliseconds > self._milliseconds:
                self._start(milliseconds)
            else:
                # Only the lower half of the random part counts up: the rest of the text stays as it is.
                self._low += 1
                if self._low >> _HALF_BITS:
                    self._start(self._milliseconds + 1)
            low = self._low
            # Written out: a function of its own takes half as long again.
            return (
                f"{self._prefix}{_PAIRS[low >> 30]}{_PAIRS[low >> 20 & 1023]}{_PAIRS[low >> 10 & 1023]}"
                f"{_PAIRS[low & 1023]}"
            )

    def _start(self, milliseconds: int) -> None:
        self._milliseconds = milliseconds
        second = milliseconds >> 10
        if second != self._second:
            # A busy process starts a thousand times in about a second: half of the text is then made once only.
            self._second = second
            self._second_text = _eight(second)
            self._second_chance = _eight(_chance())
        self._low = _chance()
        self._prefix = f"{self._second_text}{_PAIRS[milliseconds & 1023]}{self._second_chance}"


def _eight(bits: int) -> str:
    return f"{_PAIRS[bits >> 30]}{_PAIRS[bits >> 20 & 1023]}{_PAIRS[bits >> 10 & 1023]}{_PAIRS[bits & 1023]}"


def _chance() -> int:
    return int.from_bytes(os.urandom(_HALF_BITS // 8), "big")


new_ulid: Final = UlidFactory()
"""The ids of this process: two instances side by side must not make the same or disordered ones."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=new_ulid.begin_anew)
