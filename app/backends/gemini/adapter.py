"""Gemini as a backend: its calls, the connection that they use, and its batches, answered within a day for half the
price.
"""

import asyncio
import logging
import time
import warnings
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager
from contextvars import ContextVar
from typing import Self, cast

import httpx2
from google import genai
from google.auth.credentials import Credentials
from google.genai import types
from google.genai.batches import AsyncBatches

from app.backends.base import (
    BatchJob,
    Capability,
    ChatRequest,
    Decider,
    Decision,
    DecisionQuestion,
    Delta,
    Probed,
    Reply,
)
from app.backends.bounds import bound
from app.backends.gemini import GEMINI_MODEL
from app.backends.gemini.decisions import API_VERSION, decides, decision_of, questions_of
from app.backends.gemini.errors import FOREIGN, peer_of, translate
from app.backends.gemini.messages import Reading, Traits, config_of, contents_of, traits_of
from app.backends.settings import BackendSettings
from app.domain import TokenCount
from app.errors import ConfigError, UpstreamBadReply, UpstreamError
from app.observability.tracing import trace_headers

_KEEP_OPEN_S = 60.0
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_EVERYWHERE = "global"
"""Google Cloud's location if none is configured."""


class _Exchange:
    """One call: what has been read of its reply, and the HTTP response as soon as there is one.

    As an async context it closes the response. The SDK's nested generators would leave that to the garbage collector
    when a reader stops in mid-stream.
    """

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.response: httpx2.Response | None = None

    @contextmanager
    def current(self) -> Iterator[None]:
        """Responses that arrive inside belong to this exchange."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.response is not None:
            await self.response.aclose()


_CURRENT: ContextVar[_Exchange | None] = ContextVar("exchange", default=None)


def connect(
    name: str, settings: BackendSettings, credentials: Credentials | None
) -> tuple[genai.Client, httpx2.AsyncClient]:
    """Both have to be closed. Raises ConfigError without a key or project, or if they cannot be used."""
    if not settings.api_key and not settings.project:  # the SDK would take whatever key the environment has
        raise ConfigError(f"[backends.{name}] needs api_key (or GEMINI_API_KEY), or a Google Cloud project")
    _quieten()
    try:
        http = _http(settings)
        return _client(settings, credentials, http), http
    except (ValueError, ImportError, httpx2.InvalidURL) as exc:
        raise ConfigError(
            f"[backends.{name}]: the proxy that the environment names (HTTPS_PROXY, ALL_PROXY) cannot be used: {exc}"
        ) from exc


def _client(settings: BackendSettings, credentials: Credentials | None, http: httpx2.AsyncClient) -> genai.Client:
    # Our own client: with aiohttp at hand the SDK would use that, with other timeouts, errors and hidden retries. No
    # retry options, so no retries. No timeout: it would be announced to Google, which refuses those under 10 seconds.
    # For decisions the SDK retries unless it is told not to.
    once = types.HttpRetryOptions(attempts=1)
    options = types.HttpOptions(base_url=settings.url, httpx_async_client=http, retry_options=once)
    if settings.api_key:
        return genai.Client(enterprise=False, api_key=settings.api_key, http_options=options)
    return genai.Client(
        enterprise=True,
        credentials=credentials,
        project=settings.project,
        location=settings.location or _EVERYWHERE,
        http_options=options,
    )


def _http(settings: BackendSettings) -> httpx2.AsyncClient:
    async def prepare(request: httpx2.Request) -> None:
        # The SDK asks for no limits at all in each request. All but this one are the caller's total.
        request.extensions["timeout"] = {**request.extensions["timeout"], "connect": settings.connect_timeout_s}
        request.headers.update(trace_headers())

    async def note_response(response: httpx2.Response) -> None:
        if (exchange := _CURRENT.get()) is not None:
            exchange.response = response

    return httpx2.AsyncClient(
        limits=httpx2.Limits(
            max_connections=settings.concurrency,
            max_keepalive_connections=settings.concurrency,
            keepalive_expiry=_KEEP_OPEN_S,
        ),
        # A proxy in the environment is for the world outside, not for a server on this machine.
        mounts={f"all://{host}": None for host in _LOOPBACK},
        event_hooks={"request": [prepare], "response": [note_response, bound]},
    )


def _quieten() -> None:
    """Silence warnings about words that Google adds to its lists, and about unused keys in the environment."""
    warnings.filterwarnings("ignore", message=".* is not a valid ", category=UserWarning, module=r"google\.genai\.")
    logging.getLogger("google_genai").setLevel(logging.ERROR)


_Chunks = AsyncGenerator[types.GenerateContentResponse, None]


class GeminiAdapter:
    """Gemini by a key of the Developer API; without a key but with a project, through Google Cloud.

    `credentials` are Google Cloud's; None: the environment's, looked up at the first call. `now` returns the seconds
    since 1970. Raises ConfigError.
    """

    scorer = None  # Gemini gives no log-probabilities since its third generation
    reranker = None

    def __init__(
        self,
        name: str,
        settings: BackendSettings,
        credentials: Credentials | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        model = settings.model or GEMINI_MODEL
        self._model = model
        self._peer = peer_of(name, model, None if settings.api_key else settings.project)
        self._traits = traits_of(model)
        self._tier = settings.service_tier
        self._now = now
        self._client, self._http = connect(name, settings, credentials)
        self._sdk = self._client.aio.models
        self.decider: Decider | None = self if decides(model) else None
        self.batches = GeminiBatches(self._client.aio.batches, self._peer.name, model, self._traits, self._batch_seam)

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        contents, config = self._content(request)
        exchange = self._exchange()
        with self._seam(exchange):
            async with asyncio.timeout(timeout_s):
                response = await self._sdk.generate_content(model=self._model, contents=contents, config=config)
        reading = exchange.reading
        text = reading.take(response)
        ending = reading.end(may_be_empty=bool(request.stop))
        return Reply(text=text, finish_reason=ending, tokens=reading.tokens or TokenCount(), model=reading.model)

    async def stream(self, request: ChatRequest, timeout_s: float) -> AsyncGenerator[Delta, None]:
        contents, config = self._content(request)
        deadline = asyncio.get_running_loop().time() + timeout_s
        exchange = self._exchange()
        # Nothing is sent before the first chunk is read.
        chunks_to_come = self._sdk.generate_content_stream(model=self._model, contents=contents, config=config)
        async with exchange, aclosing(cast(_Chunks, await chunks_to_come)) as chunks:
            with exchange.current():
                chunk = await self._next(chunks, exchange, deadline)
            while chunk is not None:
                text = exchange.reading.take(chunk)
                if text or chunk.usage_metadata:
                    yield Delta(text=text, tokens=exchange.reading.tokens)
                chunk = await self._next(chunks, exchange, deadline)
            ending = exchange.reading.end(may_be_empty=bool(request.stop))
            yield Delta(finish_reason=ending, tokens=exchange.reading.tokens)

    async def decide(self, context: str, questions: Sequence[DecisionQuestion], timeout_s: float) -> Decision:
        """See `app.backends.base.Decider`."""
        with self._seam(self._exchange()):
            async with asyncio.timeout(timeout_s):
                reply = await self._client.aio.decisions.create(
                    model=self._model, input=context, questions=questions_of(questions), api_version=API_VERSION
                )
            return decision_of(reply, questions, self._peer)

    async def probe(self, timeout_s: float) -> Probed:
        model = await self._described(timeout_s)
        can: set[Capability] = set()
        if self.decider is not None:
            can.add("decide")
        if "generateContent" in (model.supported_actions or ([] if self.decider else ["generateContent"])):
            can |= {"chat", "structured", "images"}
        if self._traits.thinks and model.thinking is not False:
            can.add("thinking")
        return Probed(model=self._model, capabilities=frozenset(can), context_tokens=model.input_token_limit)

    async def ping(self, timeout_s: float) -> None:
        await self._described(timeout_s)

    async def aclose(self) -> None:
        # The SDK leaves clients alone that it was given.
        await self._client.aio.aclose()
        self._client.close()
        await self._http.aclose()

    async def _described(self, timeout_s: float) -> types.Model:
        with self._seam(self._exchange()):
            async with asyncio.timeout(timeout_s):
                model = await self._sdk.get(model=self._model)
        if not model.name:
            raise UpstreamBadReply(self._peer.name, f"{self._peer.name} does not describe its model")
        return model

    def _content(
        self, request: ChatRequest
    ) -> tuple[types.Content | list[types.ContentUnion], types.GenerateContentConfig]:
        return contents_of(request.messages), config_of(request, self._traits, self._tier)

    def _exchange(self) -> _Exchange:
        return _Exchange(Reading(self._peer.name, self._model))

    async def _next(
        self, chunks: _Chunks, exchange: _Exchange, deadline: float
    ) -> types.GenerateContentResponse | None:
        """The time limit is around each step: around a `yield` it would strike whoever reads the stream."""
        try:
            async with asyncio.timeout_at(deadline):
                return await anext(chunks, None)
        except FOREIGN as exc:
            raise self._translated(exc, exchange) from exc

    @contextmanager
    def _seam(self, exchange: _Exchange) -> Iterator[None]:
        """Only the SDK's calls belong in here: a TypeError after a reply counts as the reply's fault."""
        with exchange.current():
            try:
                yield
            except FOREIGN as exc:
                raise self._translated(exc, exchange) from exc

    @contextmanager
    def _batch_seam(self) -> Iterator[None]:
        with self._seam(self._exchange()):
            yield

    def _translated(self, exc: Exception, exchange: _Exchange) -> UpstreamError:
        """Our error for it. Raises `exc` itself if it is a mistake of this program, not the service's fault."""
        error = translate(exc, self._peer, exchange.response, self._now())
        if error is None:
            raise exc
        error.tokens = exchange.reading.tokens
        return error


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
