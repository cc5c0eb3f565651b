"""Whether the service lives, is ready, and what it is."""

from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.response import Redirect

from app.wiring import Dependency, Services


class Alive(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests can be served, and which dependency is in the way if not."""

    status: Literal["ready", "not ready"]
    dependencies: list[Dependency]


NOT_READY = ResponseSpec(Readiness, description="Not ready", generate_examples=False)


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """What runs here."""

    name: str
    version: str


@get("/", include_in_schema=False)
async def front_door() -> Redirect:
    """Whoever opens the service in a browser finds out what it can do."""
    return Redirect("/schema")


@get("/health/live", operation_id="live", summary="Does the process answer?")
async def live() -> Alive:
    """For a supervisor that restarts what hangs."""
    return Alive()


@get("/health/ready", operation_id="ready", summary="Can requests be served?", responses={503: NOT_READY})
async def ready(services: NamedDependency[Services]) -> Response[Readiness]:
    """For a load balancer: 503 with the dependency that is missing."""
    dependencies = await services.readiness()
    if all(dependency.ready for dependency in dependencies):
        return Response(Readiness(status="ready", dependencies=dependencies))
    return Response(Readiness(status="not ready", dependencies=dependencies), status_code=503)


@get("/version", operation_id="version", summary="What runs here?")
async def show_version() -> Version:
    """Name and version."""
    return Version(name="winnow", version=installed_version())


def installed_version() -> str:
    """Of the distribution; "0" in a tree that was never installed."""
    try:
        return version("winnow")
    except PackageNotFoundError:
        return "0"
