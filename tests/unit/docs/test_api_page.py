"""docs/api.md says what the OpenAPI description says: calls, statuses, fields, ranges, defaults and examples."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.api.problem_details import STATUS
from app.config.settings import Settings
from app.errors import UpstreamError
from app.main import create_app
from app.wiring import build_services
from indexing.errors import UnreadableDocument

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
REF = "#/components/schemas/"

_CALL = re.compile(r"^\| `([A-Z]+) (/\S*)` \|.*\| ([\d ]+) \|$", re.MULTILINE)
_SCOPE = re.compile(r"^\| `([A-Z]+) (/\S*)` \|.*\| ([^|]+) \| [\d ]+ \|$", re.MULTILINE)
_TABLE = re.compile(
    r"^`(\w+)`:\n\n\| field \| type \| default \| meaning \|\n\|[-|]+\n((?:\|.*\n)+)",
    re.MULTILINE,
)
_PARAMETERS = re.compile(
    r"^`([A-Z]+) (/\S*)` parameters:\n\n\| parameter \| type \| default \| meaning \|\n\|[-|]+\n((?:\|.*\n)+)",
    re.MULTILINE,
)
_EXAMPLE = re.compile(r"^`(\w+)`[^\n]*:\n\n```json\n(.*?)^```", re.MULTILINE | re.DOTALL)

_STATUS = re.compile(r"^\| (\d{3}) \| (`.*?`) \|", re.MULTILINE)

NEVER_SENT = (UpstreamError, UnreadableDocument)
"""They are sent as their subclasses, or as a document's result."""

Schema = dict[str, Any]
Row = tuple[str, str, str]
"""A field's name, its type and its default, in the page's words."""


@pytest.fixture(scope="module")
def openapi() -> Schema:
    app = create_app(Settings(), build_services(Settings()))
    description: Schema = app.openapi_schema.to_schema()
    return description


def test_every_call_is_listed_with_its_statuses(openapi: Schema) -> None:
    """The page and the description have the same calls, and each call the same statuses."""
    described = {
        (method.upper(), path): sorted(operation["responses"])
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    }
    listed = {(method, path): statuses.split() for method, path, statuses in _CALL.findall(PAGE)}
    assert listed == described


def test_every_call_has_the_scope_of_its_route(openapi: Schema) -> None:
    """The table says it as the description does; who needs a key may be refused for it, and for its rate."""
    headers = openapi["components"]["securitySchemes"]
    assert (headers["bearer"]["scheme"], headers["api_key"]["name"]) == ("bearer", "X-API-Key")
    described = {}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            ways = [way for way in operation["security"] if "bearer" in way]
            assert operation["security"] == [*ways, *({"api_key": way["bearer"]} for way in ways)]
            assert not ways or {"401", "403", "429"} <= {*operation["responses"]}
            named = " or ".join(f"`{scope}`" for way in ways for scope in way["bearer"])
            described[method.upper(), path] = named or ("any key" if ways else "none needed")
    assert {(method, path): scope for method, path, scope in _SCOPE.findall(PAGE)} == described


def test_every_body_has_a_table_of_its_fields(openapi: Schema) -> None:
    """Each request body, and each object within, has a table; its names, types, ranges and defaults agree."""
    schemas = openapi["components"]["schemas"]
    tables = {name: _rows(rows) for name, rows in _TABLE.findall(PAGE)}
    assert set(tables) == _bodies(openapi)
    for name, rows in tables.items():
        fields = set(schemas[name]["properties"])
        if name == "AnswerRequest":
            fields -= set(schemas["SearchRequest"]["properties"])  # the page says: all of these, and
        expected = [_row(field, shape, schemas[name]) for field, shape in schemas[name]["properties"].items()]
        assert rows == [row for row in expected if row[0] in fields], name


def test_query_parameters_are_listed(openapi: Schema) -> None:
    """Each call that takes query parameters has a table of them that agrees with the description."""
    described = {}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            found = [one for one in operation.get("parameters", ()) if one["in"] == "query"]
            if found:
                described[method.upper(), path] = [_row(one["name"], one["schema"], {}) for one in found]
    assert {(method, path): _rows(rows) for method, path, rows in _PARAMETERS.findall(PAGE)} == described


def test_examples_have_the_described_fields(openapi: Schema) -> None:
    """Each JSON example has every field that its schema requires, and none that it does not know."""
    schemas = openapi["components"]["schemas"]
    examples = _EXAMPLE.findall(PAGE)
    assert len(examples) == PAGE.count("```json")
    for name, text in examples:
        _check(json.loads(text), {"$ref": REF + name}, schemas, name)


def test_every_type_of_problem_is_listed_with_its_status() -> None:
    """The table of errors has each type that a client can get, except that of an unexpected error."""
    sent = {
        re.sub(r"(?<!^)([A-Z])", r"-\1", kind.__name__).lower(): status
        for kind, status in STATUS.items()
        if status != 500 and kind not in NEVER_SENT
    }
    listed = {name: int(status) for status, names in _STATUS.findall(PAGE) for name in re.findall(r"`([\w-]+)`", names)}
    assert listed == sent


def _rows(table: str) -> list[Row]:
    rows = []
    for line in table.splitlines():
        name, kind, default, *_ = (cell.strip() for cell in line.strip("|").split(" | "))
        rows.append((name.strip("` "), kind, default))
    return rows


def _bodies(openapi: Schema) -> set[str]:
    """The objects that request bodies are made of."""
    names = set()
    todo = [
        content["schema"]
        for operations in openapi["paths"].values()
        for operation in operations.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
    ]
    while todo:
        for name in re.findall(rf"{REF}(\w+)", json.dumps(todo.pop())):
            if name not in names:
                names.add(name)
                todo.append(openapi["components"]["schemas"][name])
    return names


def _row(name: str, shape: Schema, owner: Schema) -> Row:
    if name in owner.get("required", ()):
        return name, _kind(shape), "required"
    if "$ref" in shape:
        return name, _kind(shape), "`{}`"
    default = shape.get("default")
    return name, _kind(shape), "none" if default is None else f"`{json.dumps(default)}`"


def _kind(shape: Schema) -> str:
    """A type in the words of the page. Null is not told: it is what "none" as the default means."""
    if "$ref" in shape:
        return f"`{shape['$ref'].removeprefix(REF)}`"
    if options := shape.get("anyOf") or shape.get("oneOf"):
        # The items of `documents` are any JSON to the decoder, so that one bad document fails alone.
        return ", or ".join(_kind(option) for option in options if option not in ({"type": "null"}, {}))
    if "enum" in shape:
        return ", ".join(f'`"{value}"`' for value in sorted(shape["enum"], key=str) if value is not None)
    match shape["type"]:
        case "string":
            return _within("string", shape.get("minLength"), shape.get("maxLength"), " characters")
        case "array":
            return _within(f"list of {_kind(shape['items'])}", shape.get("minItems"), shape.get("maxItems"))
        case "integer" | "number" as kind:
            above = shape.get("exclusiveMinimum")
            least = f"above {above}" if above is not None else shape.get("minimum")
            return _within(kind, least, shape.get("maximum"))
        case kind:
            return str(kind)


def _within(kind: str, least: Any, most: Any, unit: str = "") -> str:
    least, most = (f"{bound:g}" if isinstance(bound, float) else bound for bound in (least, most))
    if most is None:
        return kind
    return f"{kind}, at most {most}{unit}" if least is None else f"{kind}, {least} to {most}{unit}"


def _check(value: Any, shape: Schema, schemas: Schema, where: str) -> None:
    if "$ref" in shape:
        shape = schemas[shape["$ref"].removeprefix(REF)]
    if isinstance(value, list):
        for item in value:
            _check(item, shape["items"], schemas, f"{where}[]")
    elif isinstance(value, dict):
        fields = shape.get("properties", {})
        assert set(shape.get("required", ())) <= set(value), where
        assert fields == {} or set(value) <= set(fields), where
        for name, item in value.items():
            _check(item, fields.get(name) or shape.get("additionalProperties") or {}, schemas, f"{where}.{name}")
