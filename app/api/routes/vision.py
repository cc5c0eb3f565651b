"""POST /vision, as JSON or as server-sent events."""

from typing import Annotated

import msgspec
from litestar import Response, post
from litestar.params import JSONBody
from msgspec import Meta

from app.api import sse as events
from app.api.openapi import problems
from app.api.request import BodyRequest, Injected, StrictJSON, caller_of, while_connected
from app.api.schemas import Name
from app.config.settings import Settings
from app.domain import ChatResult, PictureSource, VisionTask
from app.errors import pointing_at
from app.services.vision import VisionService

MAX_PICTURES = 10

Picture = Annotated[str, Meta(min_length=1)]


class VisionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /vision: `image_url`, `image` or `images`. `image` is base64 or a `data:` URL; `images` are any of these."""

    prompt: Annotated[str, Meta(min_length=1, max_length=100_000)]
    image_url: Picture | None = None
    image: Picture | None = None
    images: Annotated[list[Picture], Meta(min_length=1, max_length=MAX_PICTURES)] | None = None
    system: Annotated[str, Meta(max_length=100_000)] = ""
    backend: Annotated[Name, Meta(description='The backend: a configured name, or "auto".')] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=65_536)] = 1024
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    stream: bool = False

    def to_task(self) -> VisionTask:
        """Raises InvalidRequest pointing at the field."""
        return VisionTask(
            prompt=self.prompt,
            pictures=self._pictures(),
            system=self.system,
            backend=self.backend,
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
        )

    def _pictures(self) -> tuple[PictureSource, ...]:
        given = {"/image_url": self.image_url, "/image": self.image}
        given |= {f"/images/{place}": picture for place, picture in enumerate(self.images or ())}
        pictures = tuple(PictureSource(pointer, text) for pointer, text in given.items() if text is not None)
        fields = [field for field in (self.image_url, self.image, self.images) if field is not None]
        if len(fields) != 1:
            raise pointing_at("/image_url", 'give one of "image_url", "image" and "images"')
        return pictures


@post(
    "/vision",
    dto=StrictJSON[VisionBody],
    return_dto=None,
    status_code=200,
    operation_id="vision",
    operation_class=events.Streamable,
    summary="Ask a model about pictures",
    responses=problems(400, 402, 403, 413, 415, 422, 502, 503, 504),
)
async def vision(
    request: BodyRequest,
    data: JSONBody[VisionBody],
    vision_service: Injected[VisionService],
    settings: Injected[Settings],
) -> Response[ChatResult]:
    """A model's reply about one picture or several: PNG, JPEG, WebP or GIF, from public URLs or in the body.

    `"stream": true`, or the header `Accept: text/event-stream`, gives the events `delta`, and `done` or `error`.
    """
    task, caller = data.to_task(), caller_of(request)
    if data.stream or events.wants_events(request.headers.get("accept")):
        return await events.streamed(request, vision_service.stream(task, caller), settings.service.ping_s)
    result = (await while_connected(request, vision_service.describe(task, caller))).result
    request.scope["state"]["timings"] = result.timings_ms
    return Response(result)
