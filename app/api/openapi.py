"""The OpenAPI document and the page that shows it."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Router
from litestar.datastructures import ResponseHeader
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, License, OpenAPI, Operation, RequestBody, SecurityScheme
from litestar.plugins import OpenAPISchemaPlugin
from litestar.routes import BaseRoute, HTTPRoute
from litestar.typing import FieldDefinition

from app.api.authentication import ANY, PUBLIC, scopes_of
from app.api.problem_details import MEDIA_TYPE, Problem

_CODE = re.compile("`([^`]+)`")

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8886; padding: .5rem 0 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow-x: auto; background: #8881; padding: .7rem; border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
.method { text-transform: uppercase; font-weight: 700; }
summary { cursor: pointer; }
label { display: block; margin: .5rem 0; }
input, textarea { display: block; width: 100%; box-sizing: border-box; font: .9em ui-monospace, monospace; }
[role=status] pre { max-height: 30rem; overflow: auto; }
"""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
"""Its script, which sends the calls that people try, is a file of the page at / (`app/web/page/try.js`)."""

_HEAD = '<link rel="icon" href="/web/-/icon.svg"><script type="module" src="/web/-/try.js"></script>'
"""Without a version in the address, browsers ask whether the file is still the same."""


class ReferencePage(OpenAPIRenderPlugin):
    """A page with every operation, its body, its responses and their schemas."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The whole page, UTF-8."""
        return "".join(_page(openapi_schema)).encode()


def _page(schema: dict[str, Any]) -> Iterator[str]:
    info = schema["info"]
    title = escape(f"{info['title']} {info['version']}")
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    yield f"{_HEAD}<h1>{title}</h1><p>{_prose(info['description'])}</p>"
    yield '<p>For programs: <a href="/schema/openapi.json">JSON</a>, <a href="/schema/openapi.yaml">YAML</a>.</p>'
    yield '<div id="key"></div>'
    for path, item in sorted(schema["paths"].items()):
        for method, operation in item.items():
            yield from _operation(path, method, operation)
    yield "<h2>Shapes</h2>"
    for name, shape in sorted(schema["components"]["schemas"].items()):
        yield f'<section id="{escape(name)}"><h3>{escape(name)}</h3><p>{_prose(shape.get("description", ""))}</p>'
        yield from _fields(shape)
        yield "</section>"


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    summary = escape(operation.get("summary", ""))
    yield f'<section data-method="{method}" data-path="{escape(path)}">'
    yield f'<h3><span class="method">{method}</span> <code>{escape(path)}</code> {summary}</h3>'
    yield f"<p>{_prose(operation.get('description', ''))}</p><p>{_need(operation['security'])}</p>"
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


def _need(security: list[dict[str, list[str]]]) -> str:
    """Which key a call needs, in words."""
    if not security:
        return "No key is needed."
    scopes = dict.fromkeys(scope for requirement in security for named in requirement.values() for scope in named)
    return f"Needs a key{' of the scope ' if scopes else ''}{' or '.join(f'<code>{scope}</code>' for scope in scopes)}."


def _fields(shape: dict[str, Any]) -> Iterator[str]:
    required = shape.get("required", ())
    yield "<table>"
    for name, field in shape.get("properties", {}).items():
        need = (
            "required" if name in required else f"default {json.dumps(field['default'])}" if "default" in field else ""
        )
        yield f"<tr><td><code>{escape(name)}</code></td><td>{_kind(field)}</td><td>{escape(need)}</td>"
        yield f"<td>{_prose(field.get('description', ''))}</td></tr>"
    yield "</table>"


def _prose(text: str) -> str:
    """What is between backticks is code."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


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


DESCRIPTION = """Finds passages, lets a model judge them, and answers with verified citations.

Times are milliseconds, money is US dollars, offsets are Unicode code points, scores are finite. Every error is a
problem detail (RFC 9457, `application/problem+json`); every response carries `X-Request-Id`. Any call may also end with
408 (the request did not come in time), 414 or 431 (its URL or headers are too large), or 503 (too many connections, or
the service is stopping). `HEAD` is served wherever `GET` is."""

REQUEST_ID = ResponseHeader(
    name="X-Request-Id", value="", description="The caller's, if it sent a valid one.", documentation_only=True
)


class StructShapes(OpenAPISchemaPlugin):
    """Describes our structs as msgspec does, so that the description says what the decoder enforces.

    Litestar's own description leaves out closed objects and stumbles over defaults that cannot be hashed.
    """

    def __init__(self, *more: type[msgspec.Struct]) -> None:
        """`more` are structs that the description refers to by hand."""
        self._seen: set[type[msgspec.Struct]] = {*more}

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        return isinstance(value, type) and issubclass(value, msgspec.Struct)

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Any:
        """A reference under the class's name; `describe` adds what it refers to."""
        self._seen.add(field_definition.annotation)
        registry = schema_creator.schema_registry
        registry.get_schema_for_field_definition(field_definition)
        return registry.get_reference_for_field_definition(field_definition)

    def describe(self, api: OpenAPI) -> None:
        """Put every struct that `api` refers to, and those within, into its components."""
        kinds = sorted(self._seen, key=lambda kind: kind.__name__)
        api.components.schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")[1]


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """The `responses` of a route that may answer with these."""
    return {
        status: ResponseSpec(
            Problem, description=HTTPStatus(status).phrase, media_type=MEDIA_TYPE, generate_examples=False
        )
        for status in statuses
    }


SCHEMES = {
    "bearer": SecurityScheme(
        type="http", scheme="bearer", description="A key of `POST /keys` or `winnow keys create`. One header is enough."
    ),
    "api_key": SecurityScheme(
        type="apiKey",
        name="X-API-Key",
        security_scheme_in="header",
        description="The same key, where a proxy uses Authorization for a scheme of its own.",
    ),
}
"""How a key is sent. Until there is one, clients on the same machine need none."""


def describe_keys(api: OpenAPI, routes: Iterable[BaseRoute]) -> None:
    """Say of every operation which key it needs, by the scope of its route; the key may come in either header.

    Scopes stand as roles, as OpenAPI 3.1 has them. A key of the scope `admin` has them all.
    """
    for route in routes:
        item = (api.paths or {}).get(route.path_format)
        for handler in route.route_handlers if item is not None and isinstance(route, HTTPRoute) else ():
            needed = scopes_of(handler)
            roles = [[]] if ANY in needed else [[scope] for scope in needed if scope != PUBLIC]
            for method in handler.http_methods:
                if (operation := getattr(item, method.lower())) is not None:
                    operation.security = [{scheme: role} for scheme in SCHEMES for role in roles]


@dataclass
class OptionalBodyOperation(Operation):
    """Litestar describes every body as required."""

    def __post_init__(self) -> None:
        if isinstance(self.request_body, RequestBody):
            self.request_body.required = False


def openapi_config(version: str) -> OpenAPIConfig:
    """The page at /schema is our own: it asks nothing of a foreign host."""
    return OpenAPIConfig(
        title="Winnow",
        version=version,
        description=DESCRIPTION,
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        components=Components(security_schemes={**SCHEMES}),
        use_handler_docstrings=True,
        openapi_router=Router(
            "/schema",
            route_handlers=[],
            include_in_schema=False,
            dto=None,
            return_dto=None,
            response_headers={"Content-Security-Policy": _POLICY},
            opt={"scope": PUBLIC},
        ),
        render_plugins=[
            ReferencePage(path="/"),
            JsonRenderPlugin(path="/openapi.json"),
            YamlRenderPlugin(path=["/openapi.yaml", "/openapi.yml"]),
        ],
    )
