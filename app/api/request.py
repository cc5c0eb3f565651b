"""What a route gets of a request: its body as JSON, its caller, and whether the client is still there."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.dto import AbstractDTO
from litestar.dto.data_structures import DTOFieldDefinition
from litestar.params import SkipValidation
from litestar.typing import FieldDefinition

from app.api.bodies import NO_BODY, decode
from app.domain import Caller
from app.errors import FieldProblem, NotAllowed, NotAuthenticated, TooLarge, UnsupportedMediaType

T = TypeVar("T", bound=msgspec.Struct)

Service = TypeVar("Service")

Injected = NamedDependency[SkipValidation[Service]]
"""What `app.main` provides under the parameter's name. Not validated, so that tests can replace a service by a fake."""

HUNG_UP = "hung_up"
"""In the state of a request: an asyncio.Event that `app.server` sets when the client has gone. Not in every server."""

BUSY = "busy"
"""In the state of a request whose body the route reads: a function that says whether the client waits for the service,
and may well send nothing meanwhile.
"""

HANDED_ON = "handed_on"
"""In the state of a request that another replica has checked and counted."""


def require_plain(content_encoding: str | None) -> None:
    """Raises UnsupportedMediaType for a compressed body."""
    if content_encoding and content_encoding.lower() != "identity":
        raise UnsupportedMediaType(
            f"send the body uncompressed: Content-Encoding {content_encoding[:50]} is not supported"
        )


def require_json(content_type: str | None) -> None:
    """Raises UnsupportedMediaType. Without a type, a body may come from a foreign web page that needed no preflight."""
    media_type, _, parameters = (content_type or "").lower().partition(";")
    charset = re.search(r"charset=\"?([\w-]+)", parameters)
    if media_type.strip() != "application/json" or (charset and charset[1] not in ("utf-8", "utf8")):
        given = f"not {content_type}" if content_type else "and say so"
        raise UnsupportedMediaType(f"send UTF-8 JSON, {given}: the header Content-Type: application/json is needed")


class StrictJSON(AbstractDTO[T]):
    """`dto=StrictJSON[SearchRequest]` gives the handler its `data` by `decode`."""

    def decode_bytes(self, value: bytes) -> T:
        self.check_headers()
        body = decode(value, self.model_type)
        permit_backends(caller_of(self.asgi_connection), body)
        return body

    @classmethod
    def leaves_body(cls, _request: "BodyRequest") -> bool:
        """Whether this body is not to be read here, since the route does."""
        return False

    def check_headers(self) -> None:
        """Raises UnsupportedMediaType."""
        headers = self.asgi_connection.headers
        require_plain(headers.get("content-encoding"))
        require_json(headers.get("content-type"))

    @classmethod
    def create_for_field_definition(cls, *args: Any, **kwargs: Any) -> None:
        """There is no transfer model: the struct is what is decoded."""

    @classmethod
    def create_openapi_schema(cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any) -> Any:
        return schema_creator.for_field_definition(field_definition)

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Generator[DTOFieldDefinition, None, None]:
        yield from ()

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        return False


class OptionalJSON(StrictJSON[T]):
    """As StrictJSON, and no body at all is an empty object."""

    def decode_bytes(self, value: bytes) -> T:
        return super().decode_bytes(value) if value is not NO_BODY else decode(b"{}", self.model_type)


class BodyRequest(Request[Any, Any, Any]):
    """A request whose empty body reaches the DTO (Litestar skips it), so that `decode` can say what is missing.

    A body that the DTO leaves to the route is not read.
    """

    async def body(self) -> bytes:
        dto = self.route_handler.resolve_data_dto()
        if dto is None or not issubclass(dto, StrictJSON):
            return await super().body()
        if dto.leaves_body(self):
            self.scope["state"][BUSY] = _until_it_is_read
            return NO_BODY
        return await super().body() or NO_BODY


def _until_it_is_read() -> bool:
    return True


CountBytes = Callable[[int], None]
"""Hears how many bytes of a body have arrived; raises Overloaded when too many are held."""


def declared_length(request: Request[Any, Any, Any]) -> int:
    """Of the body in bytes, by the head of the request; 0 where it does not tell."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


async def limited(request: Request[Any, Any, Any], limit: int, refusal: str, count: CountBytes) -> bytes:
    """The body of a route without Litestar's own limit. Raises TooLarge, with the text `refusal`, beyond `limit`:
    before anything is read, where the head tells it.
    """
    if declared_length(request) > limit:
        raise TooLarge(refusal)
    pieces, size = [], 0
    async for piece in request.stream():
        count(len(piece))
        size += len(piece)
        if size > limit:
            raise TooLarge(refusal)
        pieces.append(piece)
    return b"".join(pieces)


class ClientGone(Exception):
    """The client closed the connection before it was answered."""


def request_id(scope: Mapping[str, object]) -> str:
    """The id that `app.api.middleware` gave the request."""
    state = scope.get("state")
    return str(state.get("request_id", "")) if isinstance(state, dict) else ""


def caller_of(request: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    """Whoever `app.api.middleware` found to be calling. Raises what kept it from knowing, such as NotAuthenticated."""
    state = request.scope["state"]
    if "caller" not in state:
        raise state.get("refusal") or NotAuthenticated("nobody has checked who is calling")
    caller: Caller = state["caller"]
    return caller


def permit_backends(caller: Caller, body: msgspec.Struct) -> None:
    """Raise NotAllowed, with the field, for a backend that the caller's key is not for.

    That is before any work; `app.backends.router.Route` keeps to the key's backends in any case.
    """
    for field in ("backend", "answer_backend"):
        name = getattr(body, field, None)
        if name not in (None, "auto") and not caller.may_use(name):
            detail = f"the key {caller.key!r} may not use this backend; it may use {', '.join(caller.backends or ())}"
            raise NotAllowed(detail, (FieldProblem(f"/{field}", detail),))


Result = TypeVar("Result")


async def while_connected(request: Request[Any, Any, Any], work: Awaitable[Result]) -> Result:
    """The result of `work`, which is cancelled when the client goes away (ClientGone) or this call is cancelled.

    Litestar does not cancel a handler on disconnect. The body must have been read: after it, `receive` has nothing but
    the disconnect to tell.
    """
    job = asyncio.ensure_future(work)
    hang_up = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((job, hang_up), return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        raise ClientGone
    finally:
        job.cancel()
        hang_up.cancel()
        await asyncio.gather(job, hang_up, return_exceptions=True)


async def _disconnected(request: Request[Any, Any, Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
