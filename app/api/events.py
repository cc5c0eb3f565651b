"""An answer as server-sent events: sources, delta, citation, and in the end done or error."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from itertools import count
from typing import Any

import msgspec

from app.api.problems import note_failure, problem_of
from app.domain import AnswerDone, AnswerEvent, CitationMade, SourcesFound, TextDelta

MEDIA_TYPE = "text/event-stream"
PING = b": ping\n\n"

# Proxies (nginx by this header) must not collect events, and nobody may cache an answer.
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def wants_events(accept: str | None) -> bool:
    """Whether the header names event streams; `*/*` does not."""
    kinds = (kind.partition(";")[0].strip().lower() for kind in (accept or "").split(","))
    return MEDIA_TYPE in kinds


async def event_stream(
    first: AnswerEvent, rest: AsyncIterator[AnswerEvent], instance: str, ping_s: float
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


async def _with_silence(events: AsyncIterator[AnswerEvent], after_s: float) -> AsyncGenerator[AnswerEvent | None, None]:
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


async def _next(events: AsyncIterator[AnswerEvent]) -> AnswerEvent | None:
    return await anext(events, None)


def payload(event: AnswerEvent) -> tuple[str, Any]:
    """An event's name and data."""
    match event:
        case SourcesFound():
            return "sources", event
        case TextDelta():
            return "delta", event
        case CitationMade(citation=citation):
            return "citation", citation
        case AnswerDone(answer=answer):
            return "done", {name: getattr(answer, name) for name in answer.__struct_fields__ if name != "answer"}


def _event(number: int, name: str, data: Any) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, name.encode(), msgspec.json.encode(data))
