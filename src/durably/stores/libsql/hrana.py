"""The protocol, "Hrana over HTTP": what is sent to `/v2/pipeline` and what comes back. No I/O here.

A transaction is one request: its statements are the steps of a batch, each on condition that the one before
it succeeded, between a BEGIN and a COMMIT, and a ROLLBACK on condition that the COMMIT did not happen.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

Row = tuple[Any, ...]
Rows = list[Row]
Json = dict[str, Any]

CLOSE: Final[Json] = {"type": "close"}


class Statement(NamedTuple):
    """SQL and its arguments. `tells` marks one that returns the rows it added to the event log."""

    sql: str
    arguments: tuple[Any, ...] = ()
    tells: bool = False


class StatementFailedError(Exception):
    """The server refused a statement; `position` is its place among those of the transaction."""

    def __init__(self, message: str, code: str, position: int | None, results: list[Rows]) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.position = position
        self.results = results

    @property
    def is_busy(self) -> bool:
        """Tell whether another transaction was in the way, so that nothing was done."""
        return self.code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or "database is locked" in self.message.lower()


class NotHranaError(Exception):
    """The answer is not one of this protocol."""


def query(statement: Statement) -> Json:
    """Return the request for a single statement, which is a transaction by itself."""
    return {"type": "execute", "stmt": _statement(statement)}


def transaction(statements: Sequence[Statement]) -> Json:
    """Return the request that does all statements or none."""
    steps: list[Json] = [{"stmt": _plain("BEGIN IMMEDIATE")}]
    for statement in statements:
        steps.append({"stmt": _statement(statement), "condition": _ok(len(steps) - 1)})
    commit = len(steps)
    steps.append({"stmt": _plain("COMMIT"), "condition": _ok(commit - 1)})
    steps.append({"stmt": _plain("ROLLBACK"), "condition": {"type": "not", "cond": _ok(commit)}})
    return {"type": "batch", "batch": {"steps": steps}}


def rows_of_query(answer: Any) -> Rows:
    """Return the rows of a `query`. Raises `StatementFailedError`, `NotHranaError`."""
    try:
        return _rows(_result(answer))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise NotHranaError(repr(error)) from error


def rows_of_transaction(answer: Any, count: int) -> list[Rows]:
    """Return the rows of each of the `count` statements. Raises `StatementFailedError`, `NotHranaError`."""
    try:
        result = _result(answer)
        results, errors = result["step_results"], result["step_errors"]
        done = [_rows(each) if each is not None else [] for each in results[1 : count + 1]]
        for step, error in enumerate(errors[: count + 2]):
            if error is not None:
                position = step - 1 if 0 < step <= count else None
                raise StatementFailedError(error["message"], error.get("code") or "", position, done)
        if results[count + 1] is None:
            raise NotHranaError("the transaction was not committed, and no reason given")
        return done
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise NotHranaError(repr(error)) from error


def _result(answer: Any) -> Any:
    first = answer["results"][0]
    if first["type"] == "error":
        error = first["error"]
        raise StatementFailedError(error["message"], error.get("code") or "", None, [])
    return first["response"]["result"]


def _rows(result: Json) -> Rows:
    return [tuple(map(_decoded, row)) for row in result["rows"]]


def _ok(step: int) -> Json:
    return {"type": "ok", "step": step}


def _plain(sql: str) -> Json:
    return {"sql": sql, "want_rows": False}


def _statement(statement: Statement) -> Json:
    return {"sql": statement.sql, "args": [_encoded(value) for value in statement.arguments], "want_rows": True}


def _encoded(value: Any) -> Json:
    match value:
        case None:
            return {"type": "null"}
        case str():
            return {"type": "text", "value": value}
        case int():
            # As text: a JSON number would lose what does not fit a float.
            return {"type": "integer", "value": str(int(value))}
        case float():
            return {"type": "float", "value": value}
        case _:
            raise TypeError(f"not an SQL value: {value!r}")


def _decoded(cell: Json) -> Any:
    match cell["type"]:
        case "null":
            return None
        case "integer":
            return int(cell["value"])
        case "blob":
            return base64.b64decode(cell["base64"] + "==")
        case _:
            return cell["value"]
