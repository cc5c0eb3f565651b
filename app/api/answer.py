"""POST /answer, as JSON or as server-sent events."""

from dataclasses import dataclass
from typing import Any

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, Operation, Schema
from litestar.params import JSONBody
from litestar.response import Stream

from app.api import events
from app.api.bodies import BodyRequest, StrictJSON
from app.api.disconnect import while_connected
from app.api.documentation import problems
from app.api.problems import request_id
from app.api.schemas import AnswerRequest
from app.domain import Answer, Question
from app.wiring import Services


@dataclass
class AnswerOperation(Operation):
    """The response has a second form, which Litestar cannot see in the handler's annotation."""

    def __post_init__(self) -> None:
        success = (self.responses or {}).get("200")
        if isinstance(success, OpenAPIResponse) and success.content is not None:
            description = "Events `sources`, `delta`, `citation`, and at the end `done` or `error`; `data` is JSON."
            form = OpenAPIMediaType(schema=Schema(description=description))
            success.content[events.MEDIA_TYPE] = form


@post(
    "/answer",
    dto=StrictJSON[AnswerRequest],
    return_dto=None,
    status_code=200,
    operation_id="answer",
    operation_class=AnswerOperation,
    summary="Answer from the passages",
    responses=problems(400, 403, 404, 409, 413, 415, 422, 502, 503, 504),
)
async def answer(
    request: BodyRequest, data: JSONBody[AnswerRequest], services: NamedDependency[Services]
) -> Response[Answer]:
    """An answer whose every citation is a verbatim quote; or a refusal to answer, when nothing relevant is found.

    `"stream": true`, or the header `Accept: text/event-stream`, gives the events.
    """
    question = data.to_question()
    if data.stream or events.wants_events(request.headers.get("accept")):
        return await _streamed(request, question, services)
    result = await while_connected(request, services.answerer.answer(question))
    request.scope["state"]["timings"] = result.timings_ms
    return Response(result)


async def _streamed(request: BodyRequest, question: Question, services: Services) -> Response[Any]:
    """The first event is awaited before the response begins, so that early failures keep their status."""
    stream = services.answerer.stream(question)
    first = await while_connected(request, anext(stream))
    body = events.event_stream(first, stream, request_id(request.scope), services.settings.service.ping_s)
    return Stream(body, media_type=events.MEDIA_TYPE, headers=events.HEADERS, status_code=200)
