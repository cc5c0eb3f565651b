"""Answers and replies as server-sent events: sources, delta, citation, and in the end done or error."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import msgspec
from litestar import Response
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, Operation, Schema
from litestar.response import Stream

from app.api.bodies import BodyRequest
from app.api.disconnect import while_connected
from app.api.problems import note_failure, problem_of, request_id
from app.domain import AnswerDone, AnswerEvent, ChatDone, ChatEvent, CitationMade, SourcesFound, TextDelta

Event = AnswerEvent | ChatEvent

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
            description = "Events as they happen, and at the end `done` or `error`; `data` is JSON."
            success.content[MEDIA_TYPE] = OpenAPIMediaType(schema=Schema(description=description))


async def streamed(request: BodyRequest, stream: AsyncIterator[Event], ping_s: float) -> Response[Any]:
    """The first event is awaited before the response begins, so that early failures keep their status."""
    first = await while_connected(request, anext(stream))
    body = event_stream(first, stream, request_id(request.scope), ping_s)
    return Stream(body, media_type=MEDIA_TYPE, headers=HEADERS, status_code=200)


def wants_events(accept: str | None) -> bool:
    """Whether the header names event streams; `*/*` does not."""
    kinds = (kind.partition(";")[0].strip().lower() for kind in (accept or "").split(","))
    return MEDIA_TYPE in kinds


async def event_stream(
    first: Event, rest: AsyncIterator[Event], instance: str, ping_s: float
) -> AsyncGenerator[bytes, None]:
    """The events on the wire, numbered from 1. It ends in `done` or `error`; closing it closes `rest`."""
    numbers = count(1)
    try:
        yield _event(next(numbers), *payload(first))
        async for event in _with_silence(rest, ping_s):
            yield PING if event is None else _event(next(numbers), *payload(event))
    except Exception as exc:  # noqa: BLE001 - the status is sent; what is left is to say so in the stream
        problem = problem_of(exc, instance)
        note_failure(problem, exc)
        yield _event(next(numbers), "error", problem)
    finally:
        if isinstance(rest, AsyncGenerator):
            await rest.aclose()


async def _with_silence(events: AsyncIterator[Event], after_s: float) -> AsyncGenerator[Event | None, None]:
    """The events, and None for every `after_s` seconds without one."""
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


async def _next(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)


def payload(event: Event) -> tuple[str, Any]:
    """An event's name and data."""
    match event:
        case SourcesFound():
            return "sources", event
        case TextDelta():
            return "delta", event
        case CitationMade(citation=citation):
            return "citation", citation
        case AnswerDone(answer=answer):
            return "done", _without(answer, "answer")
        case ChatDone(result=result):
            return "done", _without(result, "text")


def _without(whole: msgspec.Struct, text: str) -> dict[str, Any]:
    return {name: getattr(whole, name) for name in whole.__struct_fields__ if name != text}


def _event(number: int, name: str, data: Any) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, name.encode(), msgspec.json.encode(data))
