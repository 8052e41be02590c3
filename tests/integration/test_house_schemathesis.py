"""Whatever a client sends, by the OpenAPI document or against it, the API answers as it promises and never with 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from luban_app.frame.routes import create_app
from luban_app.house import assembly
from luban_app.store.engine import sqlite_url

EXAMPLES = 60
"""For each operation and each kind of input."""
OPERATIONS = 10
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
PATIENT = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def schema(tmp_path: Path) -> Iterator[BaseSchema]:
    made = assembly.build("vm-1", assembly.Settings(sqlite_url(tmp_path)))
    # Each request runs in an event loop of its own here; the store must outlive them.
    app = create_app("vm-1", extension=replace(made.extension, lifespan=None))
    yield schemathesis.openapi.from_asgi("/api/openapi.json", app)
    made.store.close_now()


@pytest.mark.parametrize("mode", list(GenerationMode), ids=["by the document", "against it"])
def test_the_api_keeps_its_promises(schema: BaseSchema, mode: GenerationMode) -> None:
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]

        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        @PATIENT
        def holds(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(checks=CHECKS)

        try:
            holds()
        except hypothesis.errors.Unsatisfiable:
            # There is nothing that could be wrong about an operation without any parameter.
            assert mode is GenerationMode.NEGATIVE
        tried += 1
    assert tried == OPERATIONS
