"""Texts and results as JSON lines, read and written at the same time: one row out for each row in, in their order.

Neither side is ever held as a whole. The client has to read while it sends: the service takes no more rows than it can
send results of.
"""

import asyncio
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Response
from litestar.connection import ASGIConnection
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, Operation, RequestBody, Schema
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Receive, Send
from msgspec import Meta

from app.api.bodies import decode
from app.api.problem_details import Problem, note_failure, problem_of
from app.api.request import (
    BUSY,
    HUNG_UP,
    BodyRequest,
    ClientGone,
    StrictJSON,
    caller_of,
    permit_backends,
    request_id,
    require_plain,
)
from app.domain import Caller, Usage
from app.errors import InvalidRequest, TooLarge, pointing_at
from app.observability.timing import Stopwatch
from app.services.batches import Batch, Entry, Outcome

MEDIA_TYPE = "application/x-ndjson"

MAX_LINE_BYTES = 262_144
"""A text of 100,000 characters, most of which take two bytes. Hundreds of lines are held at once."""

ROWS = "texts"
"""The field of a JSON body for which the rows stand."""

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

Options = TypeVar("Options", bound=msgspec.Struct)
Result = TypeVar("Result")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the body. Its other fields are ignored. Without an `id` the number of its line stands for it."""

    text: str
    id: Annotated[int, Meta(ge=-(2**53), le=2**53)] | Annotated[str, Meta(max_length=512)] | None = None


class _Bare(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A row that is a string, as a list of it."""

    text: str


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """The last row of a response: `done` unless the stream had to stop, for the reason in `error`. Without this row the
    stream was cut off.
    """

    done: bool
    items: int
    failed: int
    usage: Usage
    timings_ms: Mapping[str, float]
    items_per_second: float
    error: Problem | msgspec.UnsetType = msgspec.UNSET


def is_json_lines(request: ASGIConnection[Any, Any, Any, Any]) -> bool:
    """Whether the body is of that type."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == MEDIA_TYPE


class JSONOrLines(StrictJSON[Options]):
    """As StrictJSON. With a body of JSON lines, which the route reads, `data` is what the parameters of the URL say.

    The rows stand for a field `texts`: it must not be given then, and is no text where it is required.
    """

    @classmethod
    def leaves_body(cls, request: BodyRequest) -> bool:
        return is_json_lines(request)

    def decode_bytes(self, value: bytes) -> Options:
        if not is_json_lines(self.asgi_connection):
            return super().decode_bytes(value)
        require_plain(self.asgi_connection.headers.get("content-encoding"))
        return options_in_query(self.asgi_connection, self.model_type)


def options_in_query(request: ASGIConnection[Any, Any, Any, Any], kind: type[Options]) -> Options:
    """The parameters of the URL as `kind`; lists, objects, numbers and booleans as JSON. Raises InvalidRequest."""
    fields = {field.encode_name: field.type for field in msgspec.inspect.type_info(kind).fields}  # type: ignore[attr-defined] # of a struct
    given: dict[str, Any] = {}
    if any(field.name == ROWS and field.required for field in msgspec.structs.fields(kind)):
        given[ROWS] = [""]
    for name, value in parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True):
        if name == ROWS:
            raise pointing_at(f"/{ROWS}", "with JSON lines the rows are the texts; leave this out")
        given[name] = value if _is_text(fields.get(name)) else _from_json(name, value)
    options = decode(msgspec.json.encode(given), kind)
    permit_backends(caller_of(request), options)
    return options


def _is_text(kind: Any) -> bool:
    """Whether values of that type can stand in a URL as they are. Limits of a type are around it."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return _is_text(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return any(map(_is_text, kind.types))
    return isinstance(kind, msgspec.inspect.StrType | msgspec.inspect.LiteralType)


def _from_json(name: str, value: str) -> Any:
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise pointing_at(f"/{name}", f'in the URL this is JSON, such as {name}=["A","B"] or {name}=true') from exc


async def entries_of(pieces: AsyncIterator[bytes]) -> AsyncGenerator[Entry, None]:
    """The rows of a body that arrives in pieces: objects with a `text`, or strings. Blank lines are no rows.

    A row that cannot be read is an entry with its problem. Of a line that is too long no more is held than allowed.
    """
    number, held, too_long = 0, bytearray(), False
    async for piece in pieces:
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            number += 1
            held += piece[start:end]
            if entry := _entry(number, held, too_long=too_long):
                yield entry
            held, too_long, start = bytearray(), False, end + 1
        held += piece[start:]
        if len(held) > MAX_LINE_BYTES:
            held, too_long = bytearray(), True
    if entry := _entry(number + 1, held, too_long=too_long):
        yield entry


def _entry(number: int, line: bytearray, *, too_long: bool) -> Entry | None:
    if too_long or len(line) > MAX_LINE_BYTES:
        return Entry(id=number, problem=TooLarge(f"line {number} has more than {MAX_LINE_BYTES} bytes"))
    if not line.strip():
        return None
    try:
        row = _decoded(bytes(line))
    except InvalidRequest as exc:
        return Entry(id=number, problem=InvalidRequest(f"line {number}: {exc}", exc.problems))
    return Entry(id=number if row.id is None else row.id, text=row.text)


def _decoded(line: bytes) -> Row:
    line = line.removeprefix(BOM_UTF8)
    if line.lstrip()[:1] == b'"':
        return Row(text=decode(b"[" + line + b"]", _Bare).text)
    return decode(line, Row)


@dataclass
class JSONLines(Operation):
    """Describes the form of body and response which Litestar cannot see in the handler's annotations."""

    def __post_init__(self) -> None:
        success = (self.responses or {}).get("200")
        described = "One row for each row of the body, in order: its `id`, and the result or `error`; then the ending."
        if isinstance(success, OpenAPIResponse) and success.content is not None:
            success.content[MEDIA_TYPE] = OpenAPIMediaType(schema=Schema(description=described))
        if isinstance(self.request_body, RequestBody):
            rows = "Rows, one a line; the options are parameters of the URL, lists and objects as JSON."
            self.request_body.content[MEDIA_TYPE] = OpenAPIMediaType(schema=Schema(description=rows))


class LinesResponse(Response[Any], Generic[Result]):
    """The results of a batch as they come. What has `entries_of` reads must not be read by anybody else."""

    def __init__(self, request: BodyRequest, batch: Batch[Result]) -> None:
        super().__init__(None)
        self._rows = Rows(batch, request_id(request.scope), caller_of(request))
        self._hung_up: asyncio.Event | None = request.scope["state"].get(HUNG_UP)
        request.scope["state"][BUSY] = self._rows.owes
        request.scope["state"]["fail"] = self._rows.fail  # for the middleware, should the service stop meanwhile

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIResponse:
        """Litestar's own stream would listen for the client to hang up, and swallow the body by it."""
        return _TwoWayStream(self._rows, self._hung_up or asyncio.Event())


class _TwoWayStream(ASGIStreamingResponse):
    def __init__(self, rows: "Rows[Any]", hung_up: asyncio.Event) -> None:
        super().__init__(iterator=(), status_code=200, headers=HEADERS, media_type=MEDIA_TYPE)
        self._rows, self._hung_up = rows, hung_up

    async def send_body(self, send: Send, receive: Receive) -> None:
        """Send the rows while the body is read; a client that hangs up ends both."""
        body = _Body(receive, self._hung_up)
        sending = asyncio.ensure_future(self._send(body, send))
        hung_up = asyncio.ensure_future(body.hung_up())
        try:
            await asyncio.wait((sending, hung_up), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            sending.cancel()
            hung_up.cancel()
            await asyncio.gather(sending, hung_up, return_exceptions=True)

    async def _send(self, body: "_Body", send: Send) -> None:
        rows = self._rows.written(entries_of(body.pieces()))
        try:
            async for row in rows:
                await send({"type": "http.response.body", "body": row, "more_body": True})
        except ClientGone:
            return
        finally:
            await rows.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Body:
    """The pieces of a body, and whether the client is still there.

    Who reads them hears of it with the next piece, which may be long after: as long as there are no free slots, nobody
    asks for one. So the server says it, by `gone`.
    """

    def __init__(self, receive: Receive, gone: asyncio.Event) -> None:
        self._receive, self._gone = receive, gone
        self._read, self._over = asyncio.Event(), asyncio.Event()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Raises ClientGone."""
        while True:
            message: Any = await self._receive()
            if message["type"] == "http.disconnect":
                self._over.set()
                raise ClientGone
            yield message.get("body", b"")
            if not message.get("more_body", False):
                self._read.set()
                return

    async def hung_up(self) -> None:
        """Returns when the client has done so."""
        # `gone` is the connection's, which may have another request after this one: it is never set here.
        waiting = [asyncio.ensure_future(one) for one in (self._gone.wait(), self._over.wait(), self._listen())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _listen(self) -> None:
        """After the last piece there is nothing else to hear."""
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


class Rows(Generic[Result]):
    """Writes the outcomes of a batch, and counts them for the ending."""

    def __init__(self, batch: Batch[Result], instance: str, caller: Caller | None) -> None:
        self._batch, self._instance, self._caller = batch, instance, caller
        self._read = self._items = self._failed = 0
        self._usage, self._watch = Usage(), Stopwatch()

    async def written(self, entries: AsyncGenerator[Entry, None]) -> AsyncGenerator[bytes, None]:
        """A row for each entry, and the ending. Raises ClientGone."""
        outcomes = self._batch.run(self._counted(entries))
        try:
            async for outcome in outcomes:
                self._items += 1
                self._failed += outcome.error is not None
                self._usage += outcome.usage
                yield row_of(outcome, self._instance, self._caller)
        except ClientGone:
            raise
        except Exception as exc:  # noqa: BLE001 - the status is sent already: the stream itself must tell
            problem = problem_of(exc, self._instance, self._caller)
            note_failure(problem, exc)
            yield self.fail(problem, exc)
        else:
            yield self._ending(msgspec.UNSET)
        finally:
            await outcomes.aclose()

    def owes(self) -> bool:
        """Whether there are rows that have come and are not answered."""
        return self._read > self._items

    async def _counted(self, entries: AsyncGenerator[Entry, None]) -> AsyncGenerator[Entry, None]:
        async with aclosing(entries):
            async for entry in entries:
                self._read += 1
                yield entry

    def fail(self, problem: Problem, _: Exception) -> bytes:
        """The ending of a stream that has to stop."""
        return self._ending(problem)

    def _ending(self, error: Problem | msgspec.UnsetType) -> bytes:
        timings = self._watch.timings_ms()
        ending = Ending(
            done=error is msgspec.UNSET,
            items=self._items,
            failed=self._failed,
            usage=self._usage,
            timings_ms=timings,
            items_per_second=round(1000 * self._items / max(timings["total"], 0.001), 1),
            error=error,
        )
        return msgspec.json.encode(ending) + b"\n"


def row_of(outcome: Outcome[Any], instance: str, caller: Caller | None) -> bytes:
    """An outcome as a line: its id, then its result and who gave it, or its error; and what it cost."""
    row: dict[str, Any] = {"id": outcome.id}
    if outcome.judged is not None:
        result = outcome.judged.result
        row |= {name: getattr(result, name) for name in result.__struct_fields__}
        row["backend"] = outcome.judged.backend.used
    elif outcome.error is not None:
        row["error"] = problem = problem_of(outcome.error, instance, caller)
        if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:  # others may come by the million, when a server is down
            note_failure(problem, outcome.error)
    row["cost_usd"] = outcome.usage.cost_usd
    return msgspec.json.encode(row) + b"\n"
