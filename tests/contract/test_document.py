"""The handler's own OpenAPI document, held against the handler by requests that are generated from it."""

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from durably.http.openapi import OPENAPI

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

# Streams do not end; tests/http/test_fuzzing.py asks for them.
schema = schemathesis.openapi.from_dict(OPENAPI).exclude(path_regex="subscribe")


@schema.parametrize()
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_document_holds_for_valid_and_invalid_requests(case: schemathesis.Case, contract_server: str) -> None:
    """Of each operation the statuses, media types and schemas are what comes back."""
    case.call_and_validate(base_url=f"{contract_server}/api/durably", checks=CHECKS)
