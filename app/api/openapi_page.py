"""The page at /schema: the OpenAPI description as plain HTML, made here, so that it works without the internet."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from litestar import Request
from litestar.openapi.plugins import OpenAPIRenderPlugin

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8886; padding: .5rem 0 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow-x: auto; background: #8881; padding: .7rem; border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
.method { text-transform: uppercase; font-weight: 700; }
"""


class ReferencePage(OpenAPIRenderPlugin):
    """Renders every operation with its body, its answers and their shapes."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The whole page, UTF-8."""
        return "".join(_page(openapi_schema)).encode()


def _page(schema: dict[str, Any]) -> Iterator[str]:
    info = schema["info"]
    title = escape(f"{info['title']} {info['version']}")
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    yield f"<h1>{title}</h1><p>{escape(info['description'])}</p>"
    yield '<p>For programs: <a href="/schema/openapi.json">JSON</a>, <a href="/schema/openapi.yaml">YAML</a>.</p>'
    for path, item in sorted(schema["paths"].items()):
        for method, operation in item.items():
            yield from _operation(path, method, operation)
    yield "<h2>Shapes</h2>"
    for name, shape in sorted(schema["components"]["schemas"].items()):
        yield f'<section id="{escape(name)}"><h3>{escape(name)}</h3><p>{escape(shape.get("description", ""))}</p>'
        yield from _fields(shape)
        yield "</section>"


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    summary = escape(operation.get("summary", ""))
    yield f'<section><h3><span class="method">{method}</span> <code>{escape(path)}</code> {summary}</h3>'
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body, <code>{escape(media_type)}</code>: {_kind(content['schema'])}</p>"
    yield "<table>"
    for status, response in operation["responses"].items():
        forms = "; ".join(
            f"<code>{escape(media_type)}</code> {_kind(content.get('schema', {}))}"
            for media_type, content in response.get("content", {}).items()
        )
        yield f"<tr><td><code>{status}</code></td><td>{escape(response['description'])}</td><td>{forms}</td></tr>"
    yield "</table></section>"


def _fields(shape: dict[str, Any]) -> Iterator[str]:
    required = shape.get("required", ())
    yield "<table>"
    for name, field in shape.get("properties", {}).items():
        need = (
            "required" if name in required else f"default {json.dumps(field['default'])}" if "default" in field else ""
        )
        yield f"<tr><td><code>{escape(name)}</code></td><td>{_kind(field)}</td><td>{escape(need)}</td>"
        yield f"<td>{escape(field.get('description', ''))}</td></tr>"
    yield "</table>"


def _kind(schema: dict[str, Any]) -> str:
    """A type in a few words, with links to the named shapes."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    if options := schema.get("oneOf") or schema.get("anyOf"):
        return " or ".join(_kind(option) for option in options)
    if "enum" in schema:
        return " or ".join(f"<code>{escape(json.dumps(value))}</code>" for value in schema["enum"])
    if "items" in schema:
        return f"list of {_kind(schema['items'])}"
    limits = {"minimum": "≥ {}", "maximum": "≤ {}", "minLength": "length ≥ {}", "maxLength": "length ≤ {}"}
    notes = [text.format(schema[key]) for key, text in limits.items() if key in schema]
    kind = schema.get("type", "")
    return escape(", ".join([kind if isinstance(kind, str) else " or ".join(kind), *notes]))
