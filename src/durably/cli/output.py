"""What a command says on standard output."""

from __future__ import annotations

import sys

from durably.cli.errors import CommandError


def say(text: str) -> None:
    """Write to standard output. Raises `CommandError` when it takes nothing, as a full disk does."""
    if sys.stdout is None:
        raise CommandError("standard output is closed")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # What is still in its buffer would fail once more when Python ends.
        sys.stdout = None
        raise CommandError(f"standard output cannot be written: {error.strerror}") from error
