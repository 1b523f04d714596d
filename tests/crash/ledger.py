"""The side file: what happened outside of the database, in the order in which it did."""

from __future__ import annotations

import os
from pathlib import Path


class Ledger:
    """Appends lines. A line is one `write` with O_APPEND: whole and in order, also between processes.

    It is there as soon as the call returns: a SIGKILL takes the process, not what the kernel was given. (Only a
    loss of power would need an fsync, and no test here cuts the power.)
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


def read_ledger(path: Path) -> list[list[str]]:
    """Return the lines of a ledger as words; a line cut off by a full file is no line."""
    if not path.exists():
        return []
    return [line.split(" ") for line in path.read_text().split("\n")[:-1]]
