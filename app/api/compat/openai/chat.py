"""POST /v1/chat/completions."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from litestar import Response, post
from litestar.params import JSONBody

from app.api import sse
from app.api.authentication import need
from app.api.compat.citations import Links, base_of
from app.api.compat.errors import openai_error, retry_hints, shaped
from app.api.compat.inputs import LenientJSON
from app.api.compat.openai.background_tasks import has_its_sources, is_background_task, without_a_model
from app.api.compat.openai.requests import ChatCompletionBody
from app.api.compat.openai.responses import Chunks, completion, envelope_of, result_of
from app.api.request import BodyRequest, Injected, caller_of, while_connected
from app.api.schemas import Event
from app.backends.client import BackendClient
from app.backends.router import EXTRACTIVE, NONE, Backends
from app.backends.settings import AUTO
from app.config.settings import Settings
from app.domain import AnswerDone, BackendUse, Caller, ChatDone, ChatResult, ChatTask, Query, Question, TextDelta
from app.errors import NotFound, WinnowError
from app.services.chat import ChatService
from app.services.model_ids import ANSWER, find_client, split_backend
from app.services.warm_up import PROBE_S
from app.wiring import Answering

DEFAULT_COLLECTION = Query(text="").collection

CHAT_TOKENS = 4096
"""The limit of a reply by default, if the model's context has room for twice as many."""


class Target(NamedTuple):
    """What `model` names: a collection, or without one a model alone.

    `backend` ranks and writes; None: the settings' default. `tokens` limit its replies by default.
    """

    collection: str | None
    backend: str | None
    tokens: int = CHAT_TOKENS


async def target_of(model: str, clients: Mapping[str, BackendClient], caller: Caller) -> Target:
    """`winnow`, `winnow:handbook`, `winnow@gemma`, `winnow:handbook@gemma`; `gemma`, its model's id, `auto`.

    Raises NotFound, listing the models of the caller's key.
    """
    name = model.strip()
    if name == ANSWER or name.startswith((f"{ANSWER}:", f"{ANSWER}@")):
        collection, backend = split_backend(name.removeprefix(ANSWER).removeprefix(":"))
        return Target(collection or DEFAULT_COLLECTION, backend)
    if name == AUTO:
        return Target(None, AUTO)
    if (client := find_client(name, clients.values(), caller)) is None:
        # Just after the start some may not have said yet which model they have.
        await asyncio.gather(*(_probe(one) for one in clients.values() if one.probed is None))
        client = find_client(name, clients.values(), caller)
    if client is None:
        ids = [one.model for one in clients.values() if one.model and caller.may_use(one.name)]
        models = ", ".join((ANSWER, f"{ANSWER}:COLLECTION", f"{ANSWER}:COLLECTION@BACKEND", *ids))
        raise NotFound(f"chat model {name[:100]!r} not found; models are {models}; GET /v1/models lists them")
    context = client.probed.context_tokens if client.probed else None
    return Target(None, client.name, CHAT_TOKENS if context is None else max(1, min(CHAT_TOKENS, context // 2)))


async def _probe(client: BackendClient) -> None:
    with suppress(WinnowError):
        await client.known(PROBE_S)


BACKGROUND_TASK_TOKENS = 1000

Job = Question | ChatTask | ChatResult
"""A question for a collection, a chat with a model, or a reply that needs neither."""


async def job_of(
    body: ChatCompletionBody, clients: Mapping[str, BackendClient], default_backend: str, caller: Caller
) -> Job:
    """Raises InvalidRequest; NotFound for a model that does not exist; NotAllowed."""
    body.check()
    collection, backend, tokens = await target_of(body.model, clients, caller)
    need(caller, "tasks" if collection is None else "answer")
    if collection is None:
        return body.to_task(backend, tokens, body.offered())
    body.check_unaided()
    writes = bool(clients) and backend not in (EXTRACTIVE.name, NONE.name)
    if writes and (is_background_task(body) or has_its_sources(body)):
        return body.to_task(backend, BACKGROUND_TASK_TOKENS)
    if not is_background_task(body):
        return body.to_question(collection, backend)
    use = BackendUse(requested=backend or default_backend, used=NONE.name)
    return ChatResult(text=without_a_model(body), finish_reason="stop", backend=use)


async def whole(job: Job, answerer: Answering, chat_service: ChatService, caller: Caller) -> AnswerDone | ChatDone:
    """Do the job. Raises what the use cases raise."""
    match job:
        case Question():
            return await answerer.whole(job, caller)
        case ChatTask():
            return await chat_service.chat(job, caller)
        case ChatResult():
            return ChatDone(job)


def stream(job: Job, answerer: Answering, chat_service: ChatService, caller: Caller) -> AsyncIterator[Event]:
    """Do the job, as events. Closing the iterator ends the model's calls."""
    match job:
        case Question():
            return answerer.stream(job, caller)
        case ChatTask():
            return chat_service.stream_chat(job, caller)
        case ChatResult():
            return _as_events(job)


async def _as_events(result: ChatResult) -> AsyncGenerator[Event, None]:
    yield TextDelta(result.text)
    yield ChatDone(result)


@post(
    "/v1/chat/completions",
    dto=LenientJSON[ChatCompletionBody],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(openai_error, retry_hints),
    opt={"scope": ("answer", "tasks")},
)
async def openai_chat(
    request: BodyRequest,
    data: JSONBody[ChatCompletionBody],
    answerer: Injected[Answering],
    chat_service: Injected[ChatService],
    clients: Injected[Mapping[str, BackendClient]],
    backends: Injected[Backends],
    settings: Injected[Settings],
) -> Response[dict[str, Any]]:
    """`model` "winnow", "winnow:COLLECTION" or "winnow:COLLECTION@BACKEND" answers from the documents, with citations
    as annotations; a backend's name or its model's id is that model alone. GET /v1/models lists them.
    """
    caller = caller_of(request)
    job = await job_of(data, clients, backends.default, caller)
    envelope = envelope_of(caller.request_id, data.model)
    collection = job.search.collection if isinstance(job, Question) else DEFAULT_COLLECTION
    links = Links(base_of(request, settings), collection)
    if data.stream:
        counts = bool(data.stream_options and data.stream_options.include_usage)
        layout = Chunks(envelope, links, counts=counts)
        events = stream(job, answerer, chat_service, caller)
        return await sse.streamed_as(layout, request, events, settings.service.ping_s)
    done = await while_connected(request, whole(job, answerer, chat_service, caller))
    request.scope["state"]["timings"] = result_of(done).timings_ms
    return Response(completion(envelope, done, links))
