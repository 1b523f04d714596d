"""Text that every database can hold, made of whatever text or object there is."""

from __future__ import annotations

from typing import Final

_LONGEST_MESSAGE: Final = 100_000


def is_storable(text: str) -> bool:
    """Tell whether every database can hold `text` as it is: no NUL, no lone surrogate."""
    if "\x00" in text:
        return False
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def storable(text: str) -> str:
    """Return `text` with what databases cannot hold replaced: for messages, which must not be lost."""
    return text if is_storable(text) else text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def shortened(text: str) -> str:
    """Return the beginning of a message that no database should have to take whole."""
    left_out = len(text) - _LONGEST_MESSAGE
    return text if left_out <= 0 else f"{text[:_LONGEST_MESSAGE]}... ({left_out:,} more characters)"


def text_of(value: object) -> str:
    """Return the text form of any object, storable; its type where even that cannot be had.

    >>> text_of(ValueError("broken"))
    "ValueError('broken')"
    """
    try:
        return storable(repr(value))
    except Exception:  # noqa: BLE001 - a broken __repr__, or nesting without end
        return f"<{type(value).__name__}>"
