"""POST /v1/chat/completions."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from app.api import sse as events
from app.api.compat.citations import Links, base_of
from app.api.compat.errors import openai_error, retry_hints, shaped
from app.api.compat.inputs import LenientJSON
from app.api.compat.openai.background_tasks import has_its_sources, is_chore, without_a_model
from app.api.compat.openai.requests import ChatCompletionBody
from app.api.compat.openai.responses import ChatCompletion, Chunks, Heading, completion, result_of
from app.api.request import BodyRequest, caller_of, while_connected
from app.api.sse import Event
from app.backends.client import BackendClient
from app.backends.router import EXTRACTIVE, NONE
from app.backends.settings import AUTO
from app.domain import AnswerDone, BackendUse, Caller, ChatDone, ChatResult, ChatTask, Query, Question, TextDelta
from app.errors import NotFound, WinnowError
from app.services.model_ids import ANSWER, at_backend, line_called
from app.wiring import PROBE_S, Services

DEFAULT_COLLECTION = Query(text="").collection

CHAT_TOKENS = 4096
"""What a reply may have where nobody says, if the model's context has twice the room."""


class Target(NamedTuple):
    """A collection, and who ranks and writes; None: the settings' default."""

    collection: str
    backend: str | None


class Straight(NamedTuple):
    """A model, without any documents; `tokens` are what its replies may have where nobody says."""

    backend: str
    tokens: int = CHAT_TOKENS


async def meant_by(model: str, lines: Mapping[str, BackendClient]) -> Target | Straight:
    """`winnow`, `winnow:handbook`, `winnow@gemma`, `winnow:handbook@gemma`; `gemma`, its model's id, `auto`.

    Raises NotFound, listing what there is.
    """
    name = model.strip()
    if name == ANSWER or name.startswith((f"{ANSWER}:", f"{ANSWER}@")):
        collection, backend = at_backend(name.removeprefix(ANSWER).removeprefix(":"))
        return Target(collection or DEFAULT_COLLECTION, backend)
    if name == AUTO:
        return Straight(AUTO)
    line = line_called(name, lines.values()) or await _line_found_out(name, lines)
    if line is None:
        raise NotFound(f"there is no model {name[:100]!r} to chat with; {_known(lines)}; GET /v1/models lists them")
    return Straight(line.name, _tokens(line))


async def _line_found_out(name: str, lines: Mapping[str, BackendClient]) -> BackendClient | None:
    """Just after the start some may not have said yet which model they have."""
    await asyncio.gather(*(_ask(line) for line in lines.values() if line.probed is None))
    return line_called(name, lines.values())


async def _ask(line: BackendClient) -> None:
    with suppress(WinnowError):
        await line.known(PROBE_S)


def _tokens(line: BackendClient) -> int:
    context = line.probed.context_tokens if line.probed else None
    return CHAT_TOKENS if context is None else max(1, min(CHAT_TOKENS, context // 2))


def _known(lines: Mapping[str, BackendClient]) -> str:
    models = [line.model for line in lines.values() if line.model]
    return f"there are {', '.join((ANSWER, f'{ANSWER}:COLLECTION', f'{ANSWER}:COLLECTION@BACKEND', *models))}"


CHORE_TOKENS = 1000

Job = Question | ChatTask | ChatResult
"""The last one is done already."""


async def job_of(body: ChatCompletionBody, services: Services) -> Job:
    """Raises InvalidRequest; NotFound for a model that is not there."""
    body.check()
    lines = await services.clients()
    meant = await meant_by(body.model, lines)
    if isinstance(meant, Straight):
        return body.to_task(meant.backend, meant.tokens, body.offered())
    body.check_unaided()
    writes = bool(lines) and meant.backend not in (EXTRACTIVE.name, NONE.name)
    if writes and (is_chore(body) or has_its_sources(body)):
        return body.to_task(meant.backend, CHORE_TOKENS)
    if not is_chore(body):
        return body.to_question(meant.collection, meant.backend)
    use = BackendUse(requested=meant.backend or services.backends.default, used=NONE.name)
    return ChatResult(text=without_a_model(body), finish_reason="stop", backend=use)


async def whole(job: Job, services: Services, caller: Caller) -> AnswerDone | ChatDone:
    """All of it at once. Raises what the use cases raise."""
    match job:
        case Question():
            return await services.answerer.whole(job, caller)
        case ChatTask():
            return await services.tasks.chat(job, caller)
        case ChatResult():
            return ChatDone(job)


def stream(job: Job, services: Services, caller: Caller) -> AsyncIterator[Event]:
    """The same as it is made. Closing it ends the calls."""
    match job:
        case Question():
            return services.answerer.stream(job, caller)
        case ChatTask():
            return services.tasks.stream_chat(job, caller)
        case ChatResult():
            return _told(job)


async def _told(result: ChatResult) -> AsyncGenerator[Event, None]:
    yield TextDelta(result.text)
    yield ChatDone(result)


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
