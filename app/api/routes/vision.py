"""POST /vision, as JSON or as server-sent events."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Annotated, Any

import msgspec
from litestar import Response, post
from litestar.openapi.spec import Schema
from msgspec import Meta

from app.api import sse as events
from app.api.bodies import decode
from app.api.hand_on import ANY_REPLICA
from app.api.multipart import FILES, MAX_UPLOAD_BYTES, Part, both_bodies, is_form, read_form, read_json, refused
from app.api.openapi import problems
from app.api.request import BodyRequest, CountBytes, Injected, caller_of, permit_backends
from app.api.schemas import Name
from app.config.settings import Settings
from app.domain import ChatResult, ChatTask, PictureSource, Turn
from app.errors import TooLarge, pointing_at
from app.services.chat import ChatService
from app.services.documents import Documents
from app.services.pictures import MAX_PICTURES

PICTURES = ("files", "image_url")
"""The fields of a form that hold pictures."""

Picture = Annotated[str, Meta(min_length=1)]


class VisionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /vision without its pictures."""

    prompt: Annotated[str, Meta(min_length=1, max_length=100_000)]
    pages: Annotated[str, Meta(max_length=200, description='Of PDFs, such as "1-3,7". Default: all.')] | None = None
    system: Annotated[str, Meta(max_length=100_000)] = ""
    backend: Annotated[Name, Meta(description='The backend: a configured name, or "auto".')] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=65_536)] = 1024
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    stream: bool = False

    def to_task(self, pictures: Sequence[tuple[str, str | bytes]]) -> ChatTask:
        """About these pictures: the field of each, and its URL, base64 or bytes. Raises InvalidRequest."""
        pages = None if self.pages is None else pages_of(self.pages)
        sources = tuple(PictureSource(pointer, content, pages) for pointer, content in pictures)
        return ChatTask(
            messages=(Turn("user", self.prompt, sources),),
            system=self.system,
            backend=self.backend,
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
        )


class VisionBody(VisionOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /vision: `image_url`, `image` or `images`. `image` is base64 or a `data:` URL; `images` are any of these.
    PDFs are taken like pictures.
    """

    image_url: Picture | None = None
    image: Picture | None = None
    images: Annotated[list[Picture], Meta(min_length=1, max_length=MAX_PICTURES)] | None = None

    def pictures(self) -> list[tuple[str, str | bytes]]:
        """As `to_task` takes them. Raises InvalidRequest pointing at the field."""
        given = {"/image_url": self.image_url, "/image": self.image}
        given |= {f"/images/{place}": picture for place, picture in enumerate(self.images or ())}
        fields = [field for field in (self.image_url, self.image, self.images) if field is not None]
        if len(fields) != 1:
            raise pointing_at("/image_url", 'give one of "image_url", "image" and "images"')
        return [(pointer, text) for pointer, text in given.items() if text is not None]


def pages_of(text: str) -> tuple[int, ...]:
    """The pages of "1-3,7", in that order, each once. Raises InvalidRequest."""
    pages = tuple(dict.fromkeys(islice(_numbers(text), MAX_PICTURES * 10)))
    if not 1 <= len(pages) <= MAX_PICTURES:
        raise pointing_at("/pages", f"at most {MAX_PICTURES} pages are shown; send several requests for more")
    return pages


def _numbers(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, dash, last = (number.strip() for number in part.partition("-"))
        if not all(number.isascii() and number.isdecimal() for number in (first, last if dash else first)):
            raise pointing_at("/pages", 'give pages and ranges of them, such as "1-3,7"')
        begin, end = int(first), int(last or first)
        if not 1 <= begin <= end:
            raise pointing_at("/pages", "pages count from 1, and a range goes upwards")
        yield from range(begin, end + 1)


@dataclass
class VisionOperation(events.Streamable):
    """The body has two forms, and the response, too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes = msgspec.json.schema(VisionOptions)["$defs"]["VisionOptions"]["properties"]
        text: Any = "string"  # Litestar's members of an enumeration compare equal to it
        texts = {name: Schema(type=text, description=shape.get("description")) for name, shape in shapes.items()}
        urls = Schema(type="array", items=Schema(type=text))  # type: ignore[arg-type]
        self.request_body = both_bodies(
            VisionBody,
            {"files": FILES, "image_url": urls, **texts},
            ["prompt"],
            "Pictures and PDFs as files, several under the same name `files`, and URLs under `image_url`: they are "
            "shown in the order of the parts.",
        )


@post(
    "/vision",
    status_code=200,
    operation_id="vision",
    operation_class=VisionOperation,
    request_max_body_size=None,  # there is a limit for each form
    summary="Ask a model about pictures",
    responses=problems(400, 401, 402, 403, 413, 415, 422, 429, 502, 503, 504),
    opt={"scope": "tasks", ANY_REPLICA: True},
)
async def vision(
    request: BodyRequest,
    vision_service: Injected[ChatService],
    documents: Injected[Documents],
    settings: Injected[Settings],
) -> Response[ChatResult]:
    """A model's reply about one picture or several: PNG, JPEG, WebP or GIF, and pages of PDFs, from public URLs, in the
    body, or uploaded as a form.

    `"stream": true`, or the header `Accept: text/event-stream`, gives the events `delta`, and `done` or `error`.
    """
    with documents.receiving() as received:
        options, pictures = await _read(request, settings.service.max_body_bytes, received)
        caller = caller_of(request)
        permit_backends(caller, options)
        task = options.to_task(pictures)
        whole = partial(vision_service.chat, task, caller)
        stream = partial(vision_service.stream_chat, task, caller)
        return await events.whole_or_streamed(request, whole, stream, settings.service.ping_s, stream=options.stream)


async def _read(
    request: BodyRequest, max_json_bytes: int, received: CountBytes
) -> tuple[VisionOptions, Sequence[tuple[str, str | bytes]]]:
    """The body in either form. Raises InvalidRequest, UnsupportedMediaType, TooLarge, and what `received` raises."""
    if is_form(request.headers.get("content-type")):
        most = MAX_PICTURES + len(VisionOptions.__struct_fields__)
        too_large = TooLarge(f"a form may have {MAX_UPLOAD_BYTES} bytes; send the files in several requests")
        return _from_form(await read_form(request, MAX_UPLOAD_BYTES, too_large, most, received))
    body = decode(await read_json(request, max_json_bytes, received), VisionBody)
    return body, body.pictures()


def _from_form(parts: Sequence[Part]) -> tuple[VisionOptions, Sequence[tuple[str, str | bytes]]]:
    pictures = [
        (part.name, part.data if part.name == "files" else part.text()) for part in parts if part.name in PICTURES
    ]
    if not pictures:
        raise refused(("files", "send a picture or a PDF as a file, or a URL of one as image_url"))
    fields = [(part.name, part.text()) for part in parts if part.name not in PICTURES]
    if twice := {name for name, _ in fields if [other for other, _ in fields].count(name) > 1}:
        raise refused(*((name, "give this field once") for name in sorted(twice)))
    return decode(msgspec.json.encode(dict(fields)), VisionOptions, strict=False), numbered(pictures)


def numbered(pictures: Iterable[tuple[str, str | bytes]]) -> list[tuple[str, str | bytes]]:
    """A form's pictures as `VisionOptions.to_task` takes them: the parts of a name are counted."""
    numbers = {name: count() for name in PICTURES}
    return [(f"/{name}/{next(numbers[name])}", content) for name, content in pictures]
