"""POST /v1/chat/completions.

Open WebUI asks a chat's model for more than the chat: a title, tags, follow-up questions. That needs no documents, and
without a model it gets a minimal reply. A question that comes with its own documents needs none of ours either.
"""

import asyncio
import json
import re
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


TITLE_WORDS = 6
TITLE_CHARACTERS = 60

_TASK = "### Task:"
_HISTORY = re.compile(r"<chat_history>\s*(?P<turns>.*?)\s*</chat_history>", re.DOTALL)
_USER_TURN = re.compile(r"^USER:[^\S\n]*(?P<said>.*\S)", re.MULTILINE)
_WANTED = re.compile(r'\{\s*"(?P<key>title|tags|follow_ups|queries|text|prompt)"\s*:')
_UNFENCED = (
    "Your task is to reflect the speaker's likely facial expression through a fitting emoji.",
    "You have been provided with a set of responses from various models to the latest user query:",
    "Available Tools: ",
)
"""How its prompts without a heading begin: for an emoji, to merge several models' answers, to choose a tool."""

_TASKS = (
    *("title_generation", "tags_generation", "follow_up_generation", "emoji_generation", "query_generation"),
    *("image_prompt_generation", "autocomplete_generation", "function_calling", "moa_response_generation"),
)
"""Its names for these tasks: it does not send them, but pipelines between it and us may."""

_EMPTY: Mapping[str, Any] = {"tags": ["General"], "follow_ups": [], "queries": [], "text": "", "prompt": ""}


def is_background_task(body: ChatCompletionBody) -> bool:
    """Recognised by the form of its prompt, which users seldom change, or by the task's name if it is sent."""
    if isinstance(body.metadata, dict) and body.metadata.get("task") in _TASKS:
        return True
    first, last = body.messages[0].text.lstrip(), body.messages[-1].text.lstrip()
    if first.startswith(_UNFENCED) or last.startswith(_UNFENCED):
        return True
    return last.startswith(_TASK) and ("<chat_history>" in last or ("<type>" in last and "<text>" in last))


def has_its_sources(body: ChatCompletionBody) -> bool:
    """Whether it searched by itself and put what it found into the question: a file that the user attached, a page of
    the web. It counts its own sources then, from [1] on, to which ours would be added.
    """
    last = body.messages[-1].text.lstrip()
    return last.startswith(_TASK) and "<source id=" in last.partition("<context>")[2].rpartition("</context>")[0]


def without_a_model(body: ChatCompletionBody) -> str:
    """The JSON that the prompt asks for: a title from the user's first words, anything else empty."""
    prompt = body.messages[-1].text
    key_match = _WANTED.search(prompt)
    if key_match is None:
        return "{}"
    key = key_match["key"]
    return json.dumps({key: _title(prompt) if key == "title" else _EMPTY[key]}, ensure_ascii=False)


def _title(prompt: str) -> str:
    history = _HISTORY.search(prompt)
    first_turn = _USER_TURN.search(history["turns"]) if history else None
    words = first_turn["said"].split() if first_turn else []
    title = " ".join(words[:TITLE_WORDS])
    cut = title[:TITLE_CHARACTERS].rstrip()
    return f"{cut}…" if len(cut) < len(title) or len(words) > TITLE_WORDS else cut or "Chat"
