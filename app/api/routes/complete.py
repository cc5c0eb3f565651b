"""POST /complete, as JSON or as server-sent events."""

from functools import partial
from typing import Annotated

import msgspec
from litestar import Response, post
from litestar.params import JSONBody
from msgspec import Meta

from app.api import sse as events
from app.api.openapi import problems
from app.api.request import BodyRequest, Injected, StrictJSON, caller_of
from app.api.schemas import Name
from app.config.settings import Settings
from app.services.complete import CompleteService, CompletionResult, CompletionTask


class CompleteBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /complete."""

    prefix: Annotated[str, Meta(min_length=1, max_length=100_000, description="What stands before the cursor.")]
    suffix: Annotated[str, Meta(max_length=100_000, description="What stands after it.")] = ""
    language: Annotated[str, Meta(max_length=50, description="The programming language.")] = ""
    backend: Annotated[Name, Meta(description='The backend: a configured name, or "auto".')] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=8192)] = 256
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    stop: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=100)]],
        Meta(max_length=3, description="It ends before any of these."),
    ] = []
    stream: bool = False

    def to_task(self) -> CompletionTask:
        """As the use case takes it."""
        return CompletionTask(
            prefix=self.prefix,
            suffix=self.suffix,
            language=self.language,
            backend=self.backend,
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
            stop=tuple(self.stop),
        )


@post(
    "/complete",
    dto=StrictJSON[CompleteBody],
    return_dto=None,
    status_code=200,
    operation_id="complete",
    operation_class=events.Streamable,
    summary="Complete code or text at the cursor",
    responses=problems(400, 401, 402, 403, 413, 415, 422, 429, 502, 503, 504),
    opt={"scope": "tasks"},
)
async def complete(
    request: BodyRequest,
    data: JSONBody[CompleteBody],
    complete_service: Injected[CompleteService],
    settings: Injected[Settings],
) -> Response[CompletionResult]:
    """What belongs between `prefix` and `suffix`, to be inserted as it is; it stops where the suffix would be repeated,
    and with the line or block if a model fills in that was trained for it (`method`).

    `"stream": true`, or the header `Accept: text/event-stream`, gives the events `delta`, and `done` or `error`.
    """
    task, caller = data.to_task(), caller_of(request)
    whole, stream = partial(complete_service.complete, task, caller), partial(complete_service.stream, task, caller)
    return await events.whole_or_streamed(request, whole, stream, settings.service.ping_s, stream=data.stream)
