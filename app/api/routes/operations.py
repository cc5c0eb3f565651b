"""/health, /health/live, /health/ready, /version, /metrics and /backends."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec
from litestar import MediaType, Response, get
from litestar.openapi import ResponseSpec

from app.api.openapi import problems
from app.api.request import BodyRequest, Injected, caller_of
from app.backends.client import BackendClient
from app.backends.pool import BackendPool
from app.backends.replicas import Replicas
from app.backends.router import Backend, Backends
from app.backends.settings import AUTO
from app.instance import installed_version
from app.observability.metrics import MEDIA_TYPE
from app.services.monitoring import Monitoring
from app.services.ranking import Rankers, can_rank
from app.services.warm_up import Dependency, WarmUp


class Alive(msgspec.Struct, frozen=True):
    """The process is running."""

    status: Literal["alive"] = "alive"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests can be served, and if not, which dependency is missing.

    `warnings` need attention although requests are served: a disk that is nearly full, a damaged collection.
    """

    status: Literal["ready", "not ready"]
    dependencies: list[Dependency]
    warnings: list[str]


NOT_READY = ResponseSpec(Readiness, description="Not ready", generate_examples=False)

EMPTY = ResponseSpec(str, media_type=MediaType.TEXT, description="Not ready", generate_examples=False)


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """The name and version of the service."""

    name: str
    version: str


@get("/health/live", operation_id="live", summary="Liveness", responses=problems(403), opt={"scope": "public"})
async def live() -> Alive:
    """For supervisors that restart a process which hangs."""
    return Alive()


@get(
    "/health",
    operation_id="health",
    summary="Health in a status",
    media_type=MediaType.TEXT,
    responses={503: EMPTY, **problems(403)},
    opt={"scope": "public"},
)
async def health(warm_up: Injected[WarmUp]) -> Response[str]:
    """The status of /health/ready without a body, as vLLM has it: for monitors that look no further."""
    return Response("", status_code=200 if await warm_up.is_ready() else 503)


@get(
    "/health/ready",
    operation_id="ready",
    summary="Readiness",
    responses={503: NOT_READY, **problems(403)},
    opt={"scope": "public"},
)
async def ready(warm_up: Injected[WarmUp]) -> Response[Readiness]:
    """For load balancers: 503, naming the missing dependency, until requests can be served."""
    dependencies, warnings = await asyncio.gather(warm_up.readiness(), warm_up.warnings())
    if all(dependency.ready for dependency in dependencies):
        return Response(Readiness(status="ready", dependencies=dependencies, warnings=warnings))
    return Response(Readiness(status="not ready", dependencies=dependencies, warnings=warnings), status_code=503)


@get("/version", operation_id="version", summary="Version", responses=problems(401, 403, 429), opt={"scope": "any"})
async def show_version() -> Version:
    """Name and version of the service."""
    return Version(name="winnow", version=installed_version())


@get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics",
    media_type=MEDIA_TYPE,
    responses={200: ResponseSpec(str, media_type=MEDIA_TYPE, generate_examples=False), **problems(401, 403, 429)},
    opt={"scope": "metrics"},
)
async def show_metrics(monitoring: Injected[Monitoring]) -> bytes:
    """For Prometheus: what was counted, and the state at the moment. docs/metrics.md lists all of it."""
    return await monitoring.text()


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One of several servers of a backend, by its number from 1 in `url`. `health` as that of the backend.

    `serves`: calls are sent to it; one that has another model than the others gets none. `tokens_in_flight` are those
    that its calls may use.
    """

    replica: int
    health: str
    serves: bool
    model: str | None
    in_flight: int
    tokens_in_flight: int
    last_error: str | None
    retry_after_s: float | None


class BackendStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One backend, by the name that requests use.

    `capabilities`: what requests can ask of it (rank, answer, chat), and, after the first contact, what its model can
    do (structured, images, logprobs, thinking). `health` "up", "down", "resting" after failures, or "unknown" before
    the first contact; `breaker` "closed", "open" or "half_open"; latencies are medians of the last calls. `trust` in
    [0,1]: how far its grades are believed when it ranks, null as long as nothing is known of them. `replicas` are its
    servers where it has several, and left out otherwise.
    """

    name: str
    kind: str
    model: str | None = None
    capabilities: tuple[str, ...] = ()
    health: str = "up"
    breaker: str = "closed"
    latency_ms: float | None = None
    first_token_ms: float | None = None
    in_flight: int = 0
    waiting: int = 0
    last_error: str | None = None
    retry_after_s: float | None = None
    context_tokens: int | None = None
    server: str = ""
    trust: float | None = None
    replicas: tuple[ReplicaStatus, ...] | msgspec.UnsetType = msgspec.UNSET


class BackendList(msgspec.Struct, frozen=True, kw_only=True):
    """The backends by name; `default` serves requests that name none, `auto` is the one that ranks for "auto".

    `routing` is the order in which "auto" tries the models.
    """

    default: str
    auto: str
    routing: list[str]
    backends: list[BackendStatus]


@get(
    "/backends",
    operation_id="backends",
    summary="Backends, their capabilities and their health",
    responses=problems(401, 403, 429),
    opt={"scope": "any"},
)
async def show_backends(
    request: BodyRequest, backends: Injected[Backends], pool: Injected[BackendPool], rankers: Injected[Rankers]
) -> BackendList:
    """Every name that `backend` and `answer_backend` take from this key. No secrets, no addresses."""
    caller = caller_of(request)
    return BackendList(
        default=backends.default if caller.may_use(backends.default) else AUTO,
        auto=await rankers.auto_backend(caller),
        routing=[client.name for client in pool.router.auto if caller.may_use(client.name)],
        backends=[
            _status(backend, pool.router.clients, rankers) for backend in backends if caller.may_use(backend.name)
        ],
    )


def _status(backend: Backend, clients: Mapping[str, BackendClient], rankers: Rankers) -> BackendStatus:
    client = clients.get(backend.name)
    if client is None:
        return BackendStatus(name=backend.name, kind=backend.kind, capabilities=backend.roles)
    status, probed = client.status(), client.probed
    trust = rankers.trust_in(client)
    roles = tuple(role for role in backend.roles if role != "rank" or can_rank(client))
    model_capabilities = sorted(probed.capabilities - {"chat"}) if probed else ()
    return BackendStatus(
        name=backend.name,
        kind=backend.kind,
        model=probed.model if probed else backend.model,
        capabilities=(*roles, *model_capabilities),
        health=status.health,
        breaker=status.breaker,
        latency_ms=status.latency_ms,
        first_token_ms=status.first_token_ms,
        in_flight=status.in_flight,
        waiting=status.waiting,
        last_error=status.last_error,
        retry_after_s=status.retry_after,
        context_tokens=probed.context_tokens if probed else None,
        server=probed.server if probed else "",
        trust=None if trust is None else round(trust, 2),
        replicas=tuple(_replicas(client.replicas)) or msgspec.UNSET,
    )


def _replicas(replicas: Replicas) -> Iterator[ReplicaStatus]:
    for one in replicas.several:
        status = one.status()
        yield ReplicaStatus(
            replica=one.number,
            health=status.health,
            serves=replicas.serves(one),
            model=one.model or None,
            in_flight=status.in_flight,
            tokens_in_flight=one.tokens_in_flight,
            last_error=status.last_error,
            retry_after_s=status.retry_after,
        )
