"""Use case: show pictures to a model and ask about them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from app.domain import Caller, ChatDone, ChatEvent, ChatTask, Image, PictureSource, Turn, VisionTask
from app.errors import InvalidRequest, pointing_at
from app.observability.timing import Stopwatch
from app.services.chat import ChatService
from app.services.fetch import Fetcher
from app.services.pictures import MEDIA_TYPES, from_base64, prepared
from indexing.concurrency import together

STAGE = "vision"
IMAGES = "images"
"""A timing: fetching and decoding them."""

DECODED_AT_ONCE = 2
"""Of all requests together: a decoded picture may take 160 MB."""

MAX_BYTES_SENT = 20_000_000
"""Of all pictures of a request: what Gemini takes with a request."""


class VisionService:
    """A chat with pictures. They are fetched only when a backend is there that can see them."""

    def __init__(self, chat_service: ChatService, fetcher: Fetcher) -> None:
        self._chat_service = chat_service
        self._fetcher = fetcher
        self._decoders = asyncio.Semaphore(DECODED_AT_ONCE)

    async def describe(self, task: VisionTask, caller: Caller) -> ChatDone:
        """The whole reply. Raises InvalidRequest, pointing at a picture, and what `ChatService.chat` raises."""
        watch = Stopwatch()
        chat = await self._shown(task, watch)
        return _timed(await self._chat_service.chat(chat, caller), watch)

    async def stream(self, task: VisionTask, caller: Caller) -> AsyncGenerator[ChatEvent, None]:
        """The same reply as it is made. Closing it ends the call upstream."""
        watch = Stopwatch()
        chat = await self._shown(task, watch)
        async with aclosing(self._chat_service.stream_chat(chat, caller)) as events:
            async for event in events:
                yield _timed(event, watch) if isinstance(event, ChatDone) else event

    async def _shown(self, task: VisionTask, watch: Stopwatch) -> ChatTask:
        await self._chat_service.check(task.backend, frozenset(("chat", "images")))
        with watch.stage(IMAGES):
            images = await self._images(task.pictures)
        return ChatTask(
            messages=(Turn("user", task.prompt, images),),
            system=task.system,
            backend=task.backend,
            max_output_tokens=task.max_output_tokens,
            temperature=task.temperature,
        )

    async def _images(self, pictures: tuple[PictureSource, ...]) -> tuple[Image, ...]:
        images = tuple(await together(self._image(picture) for picture in pictures))
        if sum(len(image.data) for image in images) > MAX_BYTES_SENT:
            raise pointing_at(
                pictures[0].pointer, f"the pictures have more than {MAX_BYTES_SENT} bytes together; send fewer"
            )
        return images

    async def _image(self, picture: PictureSource) -> Image:
        if picture.is_url:
            fetched = await self._fetcher.fetch(picture.text, MEDIA_TYPES, picture.pointer)
        try:
            data = fetched if picture.is_url else from_base64(picture.text)
            async with self._decoders:
                return await asyncio.to_thread(prepared, data)
        except InvalidRequest as exc:
            raise pointing_at(picture.pointer, str(exc)) from exc


def _timed(done: ChatDone, watch: Stopwatch) -> ChatDone:
    timings_ms = {**done.result.timings_ms, **watch.timings_ms()}
    return msgspec.structs.replace(done, result=msgspec.structs.replace(done.result, timings_ms=timings_ms))
