"""POST /v1/chat/completions, as OpenAI offers it: answers from a collection, or a backend's own model."""

import time

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from app.api import sse as events
from app.api.callers import caller_of
from app.api.compat.citations import Links, base_of
from app.api.compat.errors import shaped
from app.api.compat.lenient_json import LenientJSON
from app.api.compat.openai.dispatch import Job, job_of, stream, whole
from app.api.compat.openai.errors import openai_error, retry_hints
from app.api.compat.openai.model_field import DEFAULT_COLLECTION
from app.api.compat.openai.requests import ChatCompletionBody
from app.api.compat.openai.responses import ChatCompletion, Chunks, Heading, completion, result_of
from app.api.disconnect import while_connected
from app.api.json_body import BodyRequest
from app.domain import Question
from app.wiring import Services


@post(
    "/v1/chat/completions",
    dto=LenientJSON[ChatCompletionBody],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(openai_error, retry_hints),
)
async def openai_chat(
    request: BodyRequest, data: JSONBody[ChatCompletionBody], services: NamedDependency[Services]
) -> Response[ChatCompletion]:
    """`model` "winnow", "winnow:COLLECTION" or "winnow:COLLECTION@BACKEND" answers from the documents, with citations
    as annotations; a backend's name or its model's id is that model alone. GET /v1/models lists them.
    """
    job, caller = await job_of(data, services), caller_of(request)
    heading = Heading(id=f"chatcmpl-{caller.request_id}", created=int(time.time()), model=data.model)
    links = Links(base_of(request, services), _collection(job))
    if data.stream:
        counts = bool(data.stream_options and data.stream_options.include_usage)
        wire = Chunks(heading, links, counts=counts)
        ping_s = services.settings.service.ping_s
        return await events.streamed_as(wire, request, stream(job, services, caller), ping_s)
    done = await while_connected(request, whole(job, services, caller))
    request.scope["state"]["timings"] = result_of(done).timings_ms
    return Response(completion(heading, done, links))


def _collection(job: Job) -> str:
    return job.search.collection if isinstance(job, Question) else DEFAULT_COLLECTION
