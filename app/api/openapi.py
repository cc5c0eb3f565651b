"""The OpenAPI description at /schema (JSON at /schema/openapi.json, YAML at /schema/openapi.yaml)."""

from http import HTTPStatus
from typing import Any

import msgspec
from litestar.datastructures import ResponseHeader
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import License, OpenAPI
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition

from app.api.openapi_page import ReferencePage
from app.api.problem_details import MEDIA_TYPE, Problem

DESCRIPTION = """Finds passages, lets a model judge them, and answers with citations that are true.

Times are milliseconds, money is US dollars, offsets are Unicode code points, scores are finite. Every error is a
problem detail (RFC 9457, `application/problem+json`); every response carries `X-Request-Id`."""

REQUEST_ID = ResponseHeader(
    name="X-Request-Id", value="", description="Yours, if it was sane.", documentation_only=True
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


def openapi_config(version: str) -> OpenAPIConfig:
    """What Litestar is told. The page at /schema is our own: it needs no script from a foreign host."""
    return OpenAPIConfig(
        title="Winnow",
        version=version,
        description=DESCRIPTION,
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        use_handler_docstrings=True,
        path="/schema",
        render_plugins=[
            ReferencePage(path="/"),
            JsonRenderPlugin(path="/openapi.json"),
            YamlRenderPlugin(path=["/openapi.yaml", "/openapi.yml"]),
        ],
    )
