"""What a route gets of a request: its JSON body, its caller, and whether the client is still there."""

import asyncio
import difflib
import re
from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable, Generator, Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.dto import AbstractDTO
from litestar.dto.data_structures import DTOFieldDefinition
from litestar.params import SkipValidation
from litestar.typing import FieldDefinition

from app.domain import Caller
from app.errors import FieldProblem, InvalidRequest, NotAllowed, NotAuthenticated, TooLarge, UnsupportedMediaType

T = TypeVar("T", bound=msgspec.Struct)

Service = TypeVar("Service")

Injected = NamedDependency[SkipValidation[Service]]
"""What `app.main` provides under the parameter's name. Not validated, so that tests can replace a service by a fake."""

_WHERE = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`(?P<path>[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.(?P<key>[^.\[]+)|\[(?P<index>\d+|\.\.\.)\]")
_UNKNOWN = re.compile(r"unknown field `(?P<field>[^`]*)`")
_NO_CHOICE = "Invalid enum value"
_FORM = re.compile(r"matching regex '(?P<pattern>.*)'$", re.DOTALL)
_NOT_BLANK = r"\\S"  # as msgspec repeats it
_PLACE = re.compile(r"\(byte (\d+)\)$")
_LONE = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)
_ENCODED_SURROGATE = re.compile(rb"\xed[\xa0-\xbf]")
LONE_SURROGATE = "a text has a lone surrogate, such as \\ud83d without its other half, which is not a character"
"""JSON can spell it, and UTF-8 cannot carry it: it comes from cutting a text within an emoji."""

_LONGEST = 500
"""Characters of a problem with a field: it repeats what the client wrote, which may be long."""

HUNG_UP = "hung_up"
"""In the state of a request: an asyncio.Event that `app.server` sets when the client has gone. Not in every server."""

BUSY = "busy"
"""In the state of a request whose body the route reads: a function that says whether the client waits for the service,
and may well send nothing meanwhile.
"""

HANDED_ON = "handed_on"
"""In the state of a request that another replica has checked and counted."""

NO_BODY = b"no body"
"""This object stands for an empty body: Litestar would not have it decoded."""

_MISSING = re.compile(r"missing required field `(?P<field>[^`]*)`")


def decode(body: bytes, kind: type[T], *, strict: bool = True) -> T:
    """The body as `kind`; if not `strict`, "1" is a number, too.

    Raises InvalidRequest with a pointer to the field, or the position of the syntax error.
    """
    body = b"" if body is NO_BODY else body.removeprefix(BOM_UTF8)
    if not body.strip():
        raise InvalidRequest(f"the body is empty; send a JSON object with {_fields(kind)}")
    try:
        decoded: T = _decoder(kind, strict=strict).decode(body)
        return decoded
    except msgspec.ValidationError as exc:
        problem = field_problem(str(exc), kind)
        where = problem.pointer or "the body"
        raise InvalidRequest(f"{where}: {problem.detail}", (problem,)) from exc
    except msgspec.DecodeError as exc:
        # msgspec has a sentence for each way in which the other half can be missing.
        place = _PLACE.search(str(exc))
        at = int(place[1]) if place else len(body)
        if _LONE.search(body[max(0, at - 24) : at + 12]):
            raise InvalidRequest(LONE_SURROGATE) from exc
        raise InvalidRequest(f"the body is not JSON: {exc}") from exc
    except UnicodeDecodeError as exc:
        if _ENCODED_SURROGATE.match(exc.object, exc.start):
            raise InvalidRequest(LONE_SURROGATE) from exc
        raise InvalidRequest(f"the body is not UTF-8: {exc.reason} at byte {exc.start} of a string") from exc
    except RecursionError as exc:
        raise InvalidRequest("the body is nested too deeply") from exc


def field_problem(message: str, kind: type[msgspec.Struct]) -> FieldProblem:
    """msgspec's message as a pointer and a sentence: "Expected `int`, got `str` - at `$.ranking.depth`".

    What it repeats of the body is cut.
    """
    problem = _field_problem(message, kind)
    return FieldProblem(_cut(problem.pointer), _cut(problem.detail))


def _field_problem(message: str, kind: type[msgspec.Struct]) -> FieldProblem:
    match = _WHERE.match(message)
    what, path = (match["what"], match["path"] or "$") if match else (message, "$")
    pointer = "".join(f"/{step['key'] or step['index']}" for step in _STEP.finditer(path)).removesuffix("/...")
    if missing := _MISSING.search(what):
        return FieldProblem(f"{pointer}/{missing['field']}", "this field is required")
    if unknown := _UNKNOWN.search(what):
        where = _struct(_type_at(kind, pointer))
        return FieldProblem(f"{pointer}/{_escaped(unknown['field'])}", _unknown(unknown["field"], where))
    if what.startswith(_NO_CHOICE) and (words := _words(_type_at(kind, pointer))):
        return FieldProblem(pointer, f"expected one of {', '.join(words)}, got{what.removeprefix(_NO_CHOICE)}")
    what = what.replace("`", "").replace("Expected", "expected")
    if form := _FORM.search(what):
        what = _in_words(form["pattern"], _type_at(kind, pointer))
    return FieldProblem(pointer, f"{what} (a key of it)" if match and match["key"] else what)


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


@cache
def _decoder(kind: type[T], *, strict: bool) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind, strict=strict)


def _type_at(kind: type[msgspec.Struct], pointer: str) -> Any:
    """msgspec's description of the type at a pointer; None if the pointer leads nowhere."""
    info: Any = msgspec.inspect.type_info(kind)
    for step in pointer.split("/")[1:]:
        info = _struct(info)
        fields = {field.encode_name: field.type for field in info.fields} if info else {}
        info = getattr(fields.get(step), "item_type", fields.get(step)) if not step.isdigit() else info
    return info


def _struct(info: Any) -> msgspec.inspect.StructType | None:
    return next((option for option in _options(info) if isinstance(option, msgspec.inspect.StructType)), None)


def _words(info: Any) -> list[str]:
    """The values of a Literal."""
    literals = (option for option in _options(info) if isinstance(option, msgspec.inspect.LiteralType))
    return [str(value) for literal in literals for value in literal.values]


def _in_words(pattern: str, info: Any) -> str:
    """What a regular expression asks for: people should not have to read it."""
    if pattern == _NOT_BLANK:
        return "expected more than white space"
    descriptions = (getattr(option, "extra_json_schema", None) or {} for option in (info, *_options(info)))
    about = next((said["description"] for said in descriptions if "description" in said), "")
    return f"not of the expected form{about and f': {about[:1].lower()}{about[1:]}'}".rstrip(".")


def _options(info: Any) -> tuple[Any, ...]:
    return info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)


def _unknown(field: str, where: msgspec.inspect.StructType | None) -> str:
    if where is None:
        return "unknown field"
    near = difflib.get_close_matches(field, where.cls.__struct_fields__, n=1)
    return f"unknown field; {f'did you mean {near[0]}?' if near else f'known are {_fields(where.cls)}'}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _fields(kind: type[msgspec.Struct]) -> str:
    return ", ".join(kind.__struct_fields__)


def _escaped(token: str) -> str:
    return token.replace("~", "~0").replace("/", "~1")


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
