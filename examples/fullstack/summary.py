"""What a column of text holds."""

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

Kind = Literal["number", "text", "empty"]


class ColumnSummary(BaseModel):
    name: str
    kind: Kind
    filled: int
    distinct: int
    smallest: str | None
    largest: str | None


def summarize(name: str, cells: Sequence[str]) -> ColumnSummary:
    """Summarize the cells of one column; it counts as numbers when every cell that is filled is one."""
    filled = [cell.strip() for cell in cells if cell.strip()]
    kind: Kind = "empty" if not filled else "number" if all(_is_number(cell) for cell in filled) else "text"
    key = float if kind == "number" else str
    return ColumnSummary(
        name=name,
        kind=kind,
        filled=len(filled),
        distinct=len(set(filled)),
        smallest=min(filled, key=key, default=None),
        largest=max(filled, key=key, default=None),
    )


def _is_number(cell: str) -> bool:
    try:
        # Python reads 2024_10 as a number; in a file it is more likely to be a name.
        return "_" not in cell and math.isfinite(float(cell))
    except ValueError:
        return False
