"""POST /answer, as JSON or as server-sent events."""

from litestar import Response, post
from litestar.params import JSONBody

from app.api import sse as events
from app.api.openapi import problems
from app.api.request import BodyRequest, Injected, StrictJSON, caller_of, while_connected
from app.api.schemas import AnswerRequest
from app.config.settings import Settings
from app.domain import Answer
from app.wiring import Answering


@post(
    "/answer",
    dto=StrictJSON[AnswerRequest],
    return_dto=None,
    status_code=200,
    operation_id="answer",
    operation_class=events.Streamable,
    summary="Answer a question from the passages",
    responses=problems(400, 401, 402, 403, 404, 409, 413, 415, 422, 429, 502, 503, 504),
    opt={"scope": "answer"},
)
async def answer(
    request: BodyRequest, data: JSONBody[AnswerRequest], answerer: Injected[Answering], settings: Injected[Settings]
) -> Response[Answer]:
    """An answer in which every citation is a verbatim quote, or an abstention when nothing relevant is found.

    A model writes it; without one it is made of the passages' own sentences. No text of the answer is sent before the
    first citation has been verified.
    `"stream": true`, or the header `Accept: text/event-stream`, gives the events `sources`, `delta`, `citation`, and
    `done` or `error`.
    """
    question, caller = data.to_question(), caller_of(request)
    if data.stream or events.wants_events(request.headers.get("accept")):
        return await events.streamed(request, answerer.stream(question, caller), settings.service.ping_s)
    result = await while_connected(request, answerer.answer(question, caller))
    request.scope["state"]["timings"] = result.timings_ms
    return Response(result)
