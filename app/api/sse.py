"""Answers and replies as server-sent events: sources, delta, citation, and finally done or error."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import msgspec
from litestar import Response
from litestar.background_tasks import BackgroundTask
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, Operation, Schema
from litestar.response import Stream

from app.api.problem_details import Problem, note_failure, problem_of
from app.api.request import BodyRequest, request_id, while_connected
from app.api.schemas import Event, payload
from app.domain import Caller, ChatDone

MEDIA_TYPE = "text/event-stream"
PING = b": ping\n\n"

# Proxies (nginx by this header) must not collect events, and nobody may cache an answer.
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@dataclass
class Streamable(Operation):
    """The response has a second form, which Litestar cannot see in the handler's annotation."""

    def __post_init__(self) -> None:
        success = (self.responses or {}).get("200")
        if isinstance(success, OpenAPIResponse) and success.content is not None:
            description = "Events as they happen, ending in `done` or `error`; `data` is JSON."
            success.content[MEDIA_TYPE] = OpenAPIMediaType(schema=Schema(description=description))


class EventFormat(Protocol):
    """How a stream is written. One per stream, for it may keep state."""

    def write(self, event: Event) -> bytes:
        """b"" if the event is not sent."""
        ...

    def fail(self, problem: Problem, exc: Exception) -> bytes:
        """The end of a stream that fails."""
        ...


async def streamed(request: BodyRequest, stream: AsyncIterator[Event], ping_s: float) -> Response[Any]:
    """The first event is awaited before the response begins, so that early failures keep their status."""
    return await _streamed(NativeEvents(), request, with_silence(stream, ping_s), patient=True)


async def whole_or_streamed(
    request: BodyRequest,
    whole: Callable[[], Awaitable[ChatDone]],
    stream_it: Callable[[], AsyncIterator[Event]],
    ping_s: float,
    *,
    stream: bool,
) -> Response[Any]:
    """The reply as JSON, or as events if `stream`, or if the header Accept names them."""
    if stream or wants_events(request.headers.get("accept")):
        return await streamed(request, stream_it(), ping_s)
    result = (await while_connected(request, whole())).result
    request.scope["state"]["timings"] = result.timings_ms
    return Response(result)


async def streamed_as(
    layout: EventFormat, request: BodyRequest, stream: AsyncIterator[Event], ping_s: float
) -> Response[Any]:
    """In another format. The response begins with the first content, so that early failures keep their status, or after
    `ping_s` seconds of silence, because proxies close connections that stay silent.
    """
    return await _streamed(layout, request, with_silence(stream, ping_s), patient=False)


def failed_as(layout: EventFormat, request: BodyRequest, exc: Exception) -> Response[Any]:
    """A stream that holds only the error, for clients that do not look at the status."""
    problem = problem_of(exc, request_id(request.scope), request.scope["state"].get("caller"))
    note_failure(problem, exc)
    return Response(layout.fail(problem, exc), media_type=MEDIA_TYPE, headers=HEADERS, status_code=200)


async def _streamed(
    layout: EventFormat, request: BodyRequest, events: AsyncGenerator[Event | None, None], *, patient: bool
) -> Response[Any]:
    opening = await while_connected(request, _opening(events, layout, patient=patient))
    # For the middleware, should the service stop meanwhile or the key be revoked: then nobody reads on.
    request.scope["state"] |= {"fail": layout.fail, "close": events.aclose}
    body = _body(opening, events, layout, request_id(request.scope), request.scope["state"].get("caller"))
    # When a client leaves before it has read everything, Litestar does not close the iterator.
    closing = BackgroundTask(_close, events)
    return Stream(body, media_type=MEDIA_TYPE, headers=HEADERS, status_code=200, background=closing)


async def _close(events: AsyncGenerator[Event | None, None]) -> None:
    await events.aclose()


async def _opening(events: AsyncGenerator[Event | None, None], layout: EventFormat, *, patient: bool) -> bytes:
    """The first bytes to send; a ping counts unless the wait is `patient`."""
    async for event in events:
        if (event is not None or not patient) and (data := _written(event, layout)):
            return data
    return b""


def _written(event: Event | None, layout: EventFormat) -> bytes:
    return PING if event is None else layout.write(event)


def wants_events(accept: str | None) -> bool:
    """Whether the header names event streams; `*/*` does not."""
    kinds = (kind.partition(";")[0].strip().lower() for kind in (accept or "").split(","))
    return MEDIA_TYPE in kinds


class NativeEvents:
    """Ours: events with names, numbered from 1, JSON data. It ends in `done` or `error`."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def write(self, event: Event) -> bytes:
        """Every event is sent."""
        return self._event(*payload(event))

    def fail(self, problem: Problem, exc: Exception) -> bytes:
        """`error`, with the problem."""
        return self._event("error", problem)

    def _event(self, name: str, data: Any) -> bytes:
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (next(self._numbers), name.encode(), msgspec.json.encode(data))


async def _body(
    opening: bytes,
    events: AsyncGenerator[Event | None, None],
    layout: EventFormat,
    instance: str,
    caller: Caller | None,
) -> AsyncGenerator[bytes, None]:
    """What is sent. Closing it closes `events`."""
    try:
        yield opening
        async for event in events:
            if data := _written(event, layout):
                yield data
    except Exception as exc:  # noqa: BLE001 - the status is sent already: the stream itself must tell
        problem = problem_of(exc, instance, caller)
        note_failure(problem, exc)
        yield layout.fail(problem, exc)
    finally:
        await events.aclose()


async def with_silence(events: AsyncIterator[Event], after_s: float) -> AsyncGenerator[Event | None, None]:
    """The events, and None for every `after_s` seconds without one. Closing it closes `events`."""
    upcoming = asyncio.ensure_future(_next(events))
    try:
        while True:
            done, _ = await asyncio.wait((upcoming,), timeout=after_s)
            if not done:
                yield None
            elif (event := upcoming.result()) is None:
                return
            else:
                yield event
                upcoming = asyncio.ensure_future(_next(events))
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)
        if isinstance(events, AsyncGenerator):
            await events.aclose()


async def _next(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)
