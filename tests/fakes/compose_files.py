"""Compose files against the specification's schema."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest


def faults_of(compose: Any) -> list[str]:
    """What is not valid, each with its place. Skips the test where check-jsonschema, with the schema, is missing."""
    package = importlib.util.find_spec("check_jsonschema")
    if package is None or package.origin is None:
        pytest.skip("check-jsonschema, which has the schema, is not installed: make test installs it")
    schema = Path(package.origin).with_name("builtin_schemas") / "vendor" / "compose-spec.json"
    errors = jsonschema_rs.validator_for(json.loads(schema.read_text(encoding="utf-8"))).iter_errors(compose)
    return [f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in errors]
