"""The handler's own description, as an OpenAPI document: `GET /openapi.json`."""

from __future__ import annotations

from typing import Any, Final

from durably.core.names import LONGEST_NAME
from durably.core.runs import RunStatus

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
_WHOLE: Final[Schema] = {"type": "integer", "minimum": 0}
_INSTANT: Final[Schema] = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"}
_INSTANT_OR_NULL: Final[Schema] = {**_INSTANT, "type": ["string", "null"]}
_ANYTHING: Final[Schema] = {}
_KEY: Final[Schema] = {
    "type": ["string", "null"],
    "minLength": 1,
    "maxLength": LONGEST_NAME,
    "pattern": r"^[^\u0000]*$",
}
_LABELS: Final[Schema] = {
    "type": "object",
    "propertyNames": {"pattern": "^[A-Za-z0-9._/-]+$"},
    "additionalProperties": {"type": "string", "pattern": r"^[^\u0000]*$"},
}


def _object(properties: Schema, optional: tuple[str, ...] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


_SCHEMAS: Final[Schema] = {
    "Error": _object({"error": _TEXT}),
    "Trigger": _object(
        {
            "jobName": {"type": "string", "minLength": 1},
            "input": _ANYTHING,
            "idempotencyKey": _KEY,
            "concurrencyKey": _KEY,
            "coalesce": {"const": "skip"},
            "labels": {**_LABELS, "type": ["object", "null"]},
        },
        optional=("idempotencyKey", "concurrencyKey", "coalesce", "labels"),
    ),
    "Triggered": _object({"runId": _TEXT, "disposition": {"enum": ["created", "idempotent", "coalesced"]}}),
    "Progress": _object(
        {"current": {"type": "number"}, "total": {"type": "number"}, "message": _TEXT}, ("total", "message")
    ),
    "Run": _object(
        {
            "id": _TEXT,
            "jobName": _TEXT,
            "input": _ANYTHING,
            "status": {"enum": [*RunStatus]},
            "currentStepIndex": _WHOLE,
            "completedStepCount": _WHOLE,
            "progress": {"anyOf": [{"$ref": "#/components/schemas/Progress"}, {"type": "null"}]},
            "output": _ANYTHING,
            "error": _TEXT_OR_NULL,
            "labels": _LABELS,
            "startedAt": _INSTANT_OR_NULL,
            "completedAt": _INSTANT_OR_NULL,
            "createdAt": _INSTANT,
            "isTerminal": {"type": "boolean"},
            "isActive": {"type": "boolean"},
        }
    ),
    "Step": _object(
        {
            "id": _TEXT,
            "runId": _TEXT,
            "name": _TEXT,
            "index": _WHOLE,
            "status": {"enum": ["completed", "failed"]},
            "output": _ANYTHING,
            "error": _TEXT_OR_NULL,
            "startedAt": _INSTANT,
            "completedAt": _INSTANT_OR_NULL,
        }
    ),
    "Log": _object(
        {
            "id": _TEXT,
            "runId": _TEXT,
            "stepName": _TEXT_OR_NULL,
            "level": {"enum": ["info", "warn", "error"]},
            "message": _TEXT,
            "data": _ANYTHING,
            "createdAt": _INSTANT,
        }
    ),
    "Job": _object(
        {
            "name": _TEXT,
            "inputSchema": {"type": ["object", "null"]},
            "outputSchema": {"type": ["object", "null"]},
        }
    ),
    "Success": _object({"success": {"const": True}}),
    "Retriggered": _object({"success": {"const": True}, "runId": _TEXT}),
}

_RUN_ID: Final[Schema] = {
    "name": "runId",
    "in": "query",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
}
_JOB_NAMES: Final[Schema] = {
    "name": "jobName",
    "in": "query",
    "description": "Any of these jobs.",
    "schema": {"type": "array", "items": _TEXT},
}
_LABEL_FILTER: Final[Schema] = {
    "name": "label",
    "in": "query",
    "description": "`label.KEY=VALUE`, as often as needed: all must match.",
    "style": "form",
    "explode": True,
    "schema": {
        "type": "object",
        "propertyNames": {"pattern": "^label\\.[A-Za-z0-9._/-]+$"},
        "additionalProperties": _TEXT,
    },
}
_LAST_EVENT_ID: Final[list[Schema]] = [
    {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The id of the last event that a reconnecting client got.",
        "schema": _TEXT,
    },
    {
        "name": "lastEventId",
        "in": "query",
        "description": "The same, for clients that cannot send the header.",
        "schema": _TEXT,
    },
]
_LIST_FILTER: Final = [
    _JOB_NAMES,
    _LABEL_FILTER,
    {"name": "status", "in": "query", "schema": {"type": "array", "items": {"enum": [*RunStatus]}}},
    {"name": "limit", "in": "query", "schema": _WHOLE},
    {"name": "offset", "in": "query", "schema": _WHOLE},
]

_ERROR: Final[Schema] = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
_STREAM: Final[Schema] = {"text/event-stream": {"schema": _TEXT}}
_BAD: Final = (400,)
_OF_A_RUN: Final = (400, 404)
_REASONS: Final = {
    400: "What was sent cannot be used",
    404: "No such run or job",
    408: "The body stopped arriving",
    409: "It conflicts with the state of a run",
    413: "The body is too large",
}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _operation(summary: str, content: Schema, parameters: list[Schema], errors: tuple[int, ...]) -> Schema:
    responses: Schema = {"200": {"description": "Done", "content": content}}
    for status in errors:
        responses[str(status)] = {"description": _REASONS[status], "content": _ERROR}
    responses["default"] = {"description": "Refused by the application, or an unexpected failure"}
    return {"summary": summary, "parameters": parameters, "responses": responses}


def _list_of(name: str) -> Schema:
    return _json({"type": "array", "items": _ref(name)})


OPENAPI: Final[Schema] = {
    "openapi": "3.1.0",
    "info": {"title": "Durably", "version": "1"},
    "paths": {
        "/trigger": {
            "post": {
                **_operation("Make a run of a job", _json(_ref("Triggered")), [], (400, 404, 408, 409, 413)),
                "requestBody": {"required": True, "content": _json(_ref("Trigger"))},
            }
        },
        "/runs": {"get": _operation("List runs, newest first", _list_of("Run"), _LIST_FILTER, _BAD)},
        "/run": {
            "get": _operation("Get a run", _json(_ref("Run")), [_RUN_ID], _OF_A_RUN),
            "delete": _operation("Delete an ended run", _json(_ref("Success")), [_RUN_ID], (400, 404, 409)),
        },
        "/steps": {"get": _operation("List the steps of a run", _list_of("Step"), [_RUN_ID], _OF_A_RUN)},
        "/logs": {"get": _operation("List the stored log lines of a run", _list_of("Log"), [_RUN_ID], _OF_A_RUN)},
        "/jobs": {"get": _operation("List the jobs", _list_of("Job"), [], ())},
        "/retrigger": {
            "post": _operation(
                "Make a fresh run of an ended one", _json(_ref("Retriggered")), [_RUN_ID], (400, 404, 409)
            )
        },
        "/cancel": {"post": _operation("Cancel a run", _json(_ref("Success")), [_RUN_ID], (400, 404, 409))},
        "/subscribe": {"get": _operation("Follow a run to its end", _STREAM, [_RUN_ID, *_LAST_EVENT_ID], _OF_A_RUN)},
        "/runs/subscribe": {
            "get": _operation("Follow all runs", _STREAM, [_JOB_NAMES, _LABEL_FILTER, *_LAST_EVENT_ID], _BAD)
        },
        "/openapi.json": {"get": _operation("Get this document", _json({"type": "object"}), [], ())},
    },
    "components": {"schemas": _SCHEMAS},
}
