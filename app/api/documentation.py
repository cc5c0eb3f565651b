"""The OpenAPI description at /schema (JSON at /schema/openapi.json, YAML at /schema/openapi.yaml)."""

from http import HTTPStatus

from litestar.datastructures import ResponseHeader
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import License

from app.api.problems import MEDIA_TYPE, Problem
from app.api.reference import ReferencePage

DESCRIPTION = """Finds passages, lets a model judge them, and answers with citations that are true.

Times are milliseconds, money is US dollars, offsets are Unicode code points, scores are finite. Every error is a
problem detail (RFC 9457, `application/problem+json`); every response carries `X-Request-Id`."""

REQUEST_ID = ResponseHeader(
    name="X-Request-Id", description="Yours, if it was sane; in the log.", documentation_only=True
)


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
