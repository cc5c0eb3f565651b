"""POST /v1/completions, as OpenAI offers it: a completion of `prompt`, before `suffix` if there is one."""

import time
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from litestar import Response, post
from litestar.params import JSONBody
from msgspec import Meta

from app.api import sse
from app.api.compat.errors import openai_error, retry_hints, shaped
from app.api.compat.inputs import LenientJSON
from app.api.compat.openai.chat import target_of
from app.api.compat.openai.requests import MAX_CHAT_TOKENS, StreamOptions
from app.api.compat.openai.responses import DONE, as_data, openai_usage
from app.api.problem_details import Problem
from app.api.request import BodyRequest, Injected, caller_of, while_connected
from app.api.schemas import Event
from app.backends.client import BackendClient
from app.config.settings import Settings
from app.domain import ChatDone, TextDelta
from app.errors import pointing_at
from app.services.complete import CompleteService, CompletionTask

DEFAULT_TOKENS = 16
"""OpenAI's."""


class CompletionsBody(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of POST /v1/completions. What is not named here is ignored."""

    model: str
    prompt: Any
    suffix: str | None = None
    max_tokens: int | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: int | None = None

    def to_task(self, backend: str | None) -> CompletionTask:
        """Raises InvalidRequest for what cannot be done and must not be ignored."""
        more = {"n": self.n not in (None, 1), "best_of": self.best_of not in (None, 1)}
        for name, wanted in {**more, "echo": self.echo, "logprobs": self.logprobs is not None}.items():
            if wanted:
                raise pointing_at(f"/{name}", "one completion is made, without its prompt and log-probabilities")
        prompt = self.prompt[0] if isinstance(self.prompt, list) and len(self.prompt) == 1 else self.prompt
        if not isinstance(prompt, str) or not prompt:
            raise pointing_at("/prompt", "a text is needed; send several requests for more, and no token ids")
        tokens = self.max_tokens if self.max_tokens and self.max_tokens > 0 else DEFAULT_TOKENS
        return CompletionTask(
            prefix=prompt,
            suffix=self.suffix or "",
            backend=backend,
            max_output_tokens=min(tokens, MAX_CHAT_TOKENS),
            temperature=1.0 if self.temperature is None else self.temperature,
            stop=tuple(filter(None, [self.stop] if isinstance(self.stop, str) else self.stop or ())),
        )


@post(
    "/v1/completions",
    dto=LenientJSON[CompletionsBody],
    return_dto=None,
    status_code=200,
    exception_handlers=shaped(openai_error, retry_hints),
    opt={"scope": "tasks"},
)
async def create_completion(
    request: BodyRequest,
    data: JSONBody[CompletionsBody],
    complete_service: Injected[CompleteService],
    clients: Injected[Mapping[str, BackendClient]],
    settings: Injected[Settings],
) -> Response[dict[str, Any]]:
    """As POST /complete; `model` is a backend's name, its model's id, or "auto"."""
    caller = caller_of(request)
    target = await target_of(data.model, clients, caller)
    if target.collection is not None:
        raise pointing_at("/model", "collections answer questions; name a backend, its model, or auto")
    task = data.to_task(target.backend)
    envelope = {
        "id": f"cmpl-{caller.request_id}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": data.model,
    }
    if data.stream:
        counts = bool(data.stream_options and data.stream_options.include_usage)
        events = complete_service.stream(task, caller)
        return await sse.streamed_as(
            CompletionChunks(envelope, counts=counts), request, events, settings.service.ping_s
        )
    result = (await while_connected(request, complete_service.complete(task, caller))).result
    request.scope["state"]["timings"] = result.timings_ms
    choices = [_choice(result.text, result.finish_reason)]
    return Response({**envelope, "choices": choices, "usage": openai_usage(result.usage)})


class CompletionChunks:
    """`app.api.sse.EventFormat`: a text_completion for each piece. `counts`: the last one has the usage."""

    def __init__(self, envelope: Mapping[str, Any], *, counts: bool) -> None:
        self._envelope, self._counts = envelope, counts

    def write(self, event: Event) -> bytes:
        """Texts, and the end."""
        match event:
            case TextDelta(text=text):
                return self._chunk([_choice(text, None)])
            case ChatDone(result=result):
                usage = self._chunk([], usage=openai_usage(result.usage)) if self._counts else b""
                return self._chunk([_choice("", result.finish_reason)]) + usage + DONE
        return b""

    def fail(self, problem: Problem, exc: Exception) -> bytes:
        """The error in place of a chunk: OpenAI's clients raise it."""
        return as_data(openai_error(problem, exc)[1]) + DONE

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return as_data({**self._envelope, "choices": choices, **more})


def _choice(text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish_reason}
