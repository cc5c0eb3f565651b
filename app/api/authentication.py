"""Which keys a request has, who that makes its caller, and what of the API that caller may use."""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args

from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import Guard

from app.access.access import Access
from app.access.keys import OPERATOR
from app.api.request import HANDED_ON, caller_of
from app.domain import Caller, Scope
from app.errors import NotAllowed, NotAuthenticated, RateLimited
from app.instance import TOKEN_HEADER, Presence

PUBLIC = "public"
"""The scope of routes that need no key: the health of the service and the description of its API."""

ANY = "any"
"""The scope of routes that every key may use."""

ROUTE_SCOPES = frozenset((*get_args(Scope), OPERATOR, PUBLIC, ANY))

REFUSALS = {NotAuthenticated: "key", NotAllowed: "scope", RateLimited: "rate"}
"""What the metrics call them."""

_KEY_HEADERS = (b"x-api-key", b"api-key")
_TOKEN_HEADER = TOKEN_HEADER.lower().encode()


def tokens_of(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
    """Every key that a request has in a header. Those in the URL are ignored: URLs end up in logs.

    Of Authorization only Bearer counts: a proxy may use it for a scheme of its own, and leave us X-API-Key. "api-key"
    is that of Azure's clients.
    """
    for name, value in headers:
        text = value.decode("latin-1").strip()
        if name in _KEY_HEADERS and text:
            yield text
        elif name == b"authorization":
            scheme, _, token = text.partition(" ")
            if scheme.lower() == "bearer" and token.strip():
                yield token.strip()


def is_operator(headers: Iterable[tuple[bytes, bytes]], presence: Presence | None) -> bool:
    """Whether it could read the file of the home that has the token: the user who runs the service, on its machine."""
    given = next((value for name, value in headers if name == _TOKEN_HEADER), b"")
    return presence is not None and secrets.compare_digest(given, presence.token.encode())


def guard_of(access: Callable[[], Access]) -> Guard:
    """The guard of every route, called before the body is read. It raises NotAuthenticated, NotAllowed, RateLimited."""

    async def require(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        needed = scopes_of(handler)
        if PUBLIC in needed or connection.scope.get("method") == "OPTIONS":  # Litestar's own answer: the methods
            return
        state = connection.scope["state"]
        state["needed"] = needed
        try:
            caller = caller_of(connection)
            if ANY not in needed:
                need(caller, *needed)
            # A rate that was set for searches must not refuse the scrape, and counts what is handed on once.
            if "metrics" not in needed and HANDED_ON not in state:
                state["rated"] = True
                await access().admit(caller)
        except (NotAuthenticated, NotAllowed, RateLimited) as exc:
            state["refused"] = REFUSALS[type(exc)]
            raise

    return require


def need(caller: Caller, *scopes: str) -> None:
    """Raise NotAllowed unless the caller has one of these scopes."""
    if not caller.scopes.isdisjoint(scopes):
        return
    if OPERATOR in scopes:
        raise NotAllowed("only the command line of the user who runs the service may ask for this")
    raise NotAllowed(
        f"the key {caller.key!r} has the scope {', '.join(sorted(caller.scopes))}; this needs {' or '.join(scopes)}"
    )


def is_audited(method: str, state: Mapping[str, Any]) -> bool:
    """Whether a request belongs into the audit log: what changes something, and whoever is refused."""
    changes = method in ("POST", "PUT", "DELETE") and not {"write", "admin", OPERATOR}.isdisjoint(
        state.get("needed", ())
    )
    return changes or status_of(state) in (401, 402, 403, 429)


OUTCOME = "outcome"
"""In the state of a request: the status that counts, where the protocol answers 200 to what has failed, too."""


def status_of(state: Mapping[str, Any]) -> int | None:
    """The status of a response, for the log and for what is counted; None: nobody was there to be answered."""
    status: int | None = state.get("status")
    return status if status is None else state.get(OUTCOME, status)


def check_scopes(app: Litestar) -> None:
    """Raise RuntimeError for a route that does not say which scope it needs: nobody would be kept from it."""
    for route in app.routes:
        handlers = route.route_handlers if isinstance(route, HTTPRoute) else [route.route_handler]
        for handler in handlers:
            needed = scopes_of(handler)
            automatic = getattr(handler, "http_methods", None) == {"OPTIONS"}
            if not automatic and (not needed or not ROUTE_SCOPES.issuperset(needed)):
                raise RuntimeError(f'{route.path} ({handler}) needs opt={{"scope": ...}}')


def scopes_of(handler: BaseRouteHandler) -> tuple[str, ...]:
    """Any of them will do."""
    scope: str | tuple[str, ...] = handler.opt.get("scope", ())
    return (scope,) if isinstance(scope, str) else tuple(scope)
