"""Ids that sort by the moment they were made."""

import os
import threading
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
_RANDOM_BITS: Final = 80


class UlidFactory:
    """Makes ULIDs that strictly increase within the process, also when the clock stands or goes back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._milliseconds = -1
        self._prefix = ""
        self._random = 0

    def __call__(self, milliseconds: int) -> str:
        """Return the next id, for an instant given in milliseconds since 1970."""
        with self._lock:
            if milliseconds > self._milliseconds:
                self._start(milliseconds)
            else:
                self._random += 1
                if self._random >> _RANDOM_BITS:
                    self._start(self._milliseconds + 1)
            return self._prefix + _encode(self._random)

    def _start(self, milliseconds: int) -> None:
        self._milliseconds = milliseconds
        self._prefix = "".join(_PAIRS[milliseconds >> shift & 1023] for shift in (40, 30, 20, 10, 0))
        self._random = int.from_bytes(os.urandom(_RANDOM_BITS // 8), "big")


def _encode(number: int) -> str:
    high, low = number >> 40, number & 0xFF_FFFF_FFFF
    return (
        _PAIRS[high >> 30] + _PAIRS[high >> 20 & 1023] + _PAIRS[high >> 10 & 1023] + _PAIRS[high & 1023]
        + _PAIRS[low >> 30] + _PAIRS[low >> 20 & 1023] + _PAIRS[low >> 10 & 1023] + _PAIRS[low & 1023]
    )  # fmt: skip


new_ulid: Final = UlidFactory()
"""The ids of this process: two instances side by side must not make the same or disordered ones."""
