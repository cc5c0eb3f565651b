"""Who does what a chat asks for: the answerer, a model, or nobody, where a text is at hand."""

from collections.abc import AsyncGenerator, AsyncIterator

from app.api.compat.openai.background_tasks import has_its_sources, is_chore, without_a_model
from app.api.compat.openai.model_field import Straight, meant_by
from app.api.compat.openai.requests import ChatCompletionBody
from app.api.sse import Event
from app.backends.registry import EXTRACTIVE, NONE
from app.domain import AnswerDone, BackendUse, Caller, ChatDone, ChatResult, ChatTask, Question, TextDelta
from app.wiring import Services

CHORE_TOKENS = 1000

Job = Question | ChatTask | ChatResult
"""The last one is done already."""


async def job_of(body: ChatCompletionBody, services: Services) -> Job:
    """Raises InvalidRequest; NotFound for a model that is not there."""
    body.check()
    lines = await services.lines()
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
