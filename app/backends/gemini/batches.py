"""Gemini's batches: many requests at once, answered within a day for half the price."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from google.genai import types
from google.genai.batches import AsyncBatches

from app.backends.base import BatchJob, ChatRequest, Reply
from app.backends.gemini.messages import Reading, Traits, config_of, contents_of
from app.domain import TokenCount
from app.errors import UpstreamBadReply, UpstreamError

_DONE = (types.JobState.JOB_STATE_SUCCEEDED, types.JobState.JOB_STATE_PARTIALLY_SUCCEEDED)
_FAILED = {
    types.JobState.JOB_STATE_FAILED: "failed",
    types.JobState.JOB_STATE_CANCELLED: "was cancelled",
    types.JobState.JOB_STATE_EXPIRED: "expired before it was done",
}


class GeminiBatches:
    """`seam` translates the SDK's errors."""

    def __init__(
        self,
        sdk: AsyncBatches,
        service: str,
        model: str,
        traits: Traits,
        seam: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._sdk, self._service, self._model, self._traits, self._seam = sdk, service, model, traits, seam

    async def submit(self, requests: Sequence[ChatRequest], label: str, timeout_s: float) -> str:
        source = [self._inlined(request) for request in requests]
        config = types.CreateBatchJobConfig(display_name=label)
        with self._seam():
            async with asyncio.timeout(timeout_s):
                job = await self._sdk.create(model=self._model, src=source, config=config)
        if not job.name:
            raise UpstreamBadReply(self._service, f"{self._service} does not name its batch")
        return job.name

    async def find(self, label: str, timeout_s: float) -> str | None:
        with self._seam():
            async with asyncio.timeout(timeout_s):
                async for job in await self._sdk.list():
                    if job.display_name == label:
                        return job.name
        return None

    async def look(self, name: str, timeout_s: float) -> BatchJob:
        with self._seam():
            async with asyncio.timeout(timeout_s):
                job = await self._sdk.get(name=name)
        if why := _FAILED.get(job.state or types.JobState.JOB_STATE_UNSPECIFIED):
            return BatchJob(failed=f"{self._service}: the batch {why}")
        if job.state not in _DONE:
            return BatchJob()
        responses = job.dest.inlined_responses if job.dest else None
        return BatchJob(replies=tuple(map(self._reply, responses or ())))

    def _inlined(self, request: ChatRequest) -> types.InlinedRequest:
        config = config_of(request, self._traits, None)
        return types.InlinedRequest(contents=contents_of(request.messages), config=config)

    def _reply(self, response: types.InlinedResponse) -> Reply | UpstreamError:
        if response.response is None:
            return UpstreamBadReply(self._service, f"{self._service}: the batch has no reply to this request")
        reading = Reading(self._service, self._model)
        try:
            text = reading.take(response.response)
            ending = reading.end(may_be_empty=False)
        except UpstreamError as exc:
            exc.tokens = reading.tokens
            return exc
        return Reply(text=text, finish_reason=ending, tokens=reading.tokens or TokenCount(), model=reading.model)
