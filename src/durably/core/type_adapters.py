"""Where Pydantic's adapters are made.

It looks names that stand in a type as text up in the module that asks it. So it is asked here, where it finds none of
ours: a user may call a class `Mode` too.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter


def adapter_of(annotation: Any) -> TypeAdapter[Any]:
    """Return Pydantic's adapter of a type. Raises what that raises."""
    return TypeAdapter(annotation)
