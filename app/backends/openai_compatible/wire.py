"""The one way to an OpenAI-style server: OpenAI's SDK over our own connections."""

import asyncio
import ipaddress
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx2
import msgspec
from openai import AsyncOpenAI, AsyncStream, Omit

from app.backends.bounds import bound
from app.backends.openai_compatible.errors import FOREIGN, named_error, translated
from app.backends.openai_compatible.messages import Completion
from app.backends.settings import BackendSettings
from app.backends.status import NoSuchModel, Peer
from app.domain import TokenCount
from app.errors import InvalidRequest, UpstreamBadReply, UpstreamError
from app.observability.tracing import trace_headers

Body = Mapping[str, Any]
T = TypeVar("T")

_KEEP_ALIVE_S = 4.0
"""uvicorn, hence vLLM, closes idle connections after 5 s; using one at that moment would fail."""

_COMPLETION = msgspec.json.Decoder(Completion)

_USER_AGENT = "winnow"


class _Client(AsyncOpenAI):
    """Without the headers that the SDK takes from the environment, which are not meant for this server."""

    @property
    def default_headers(self) -> dict[str, str | Omit]:
        return {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": _USER_AGENT}


class Wire:
    """Sends one request each and retries nothing. Every call raises UpstreamError."""

    def __init__(self, name: str, settings: BackendSettings, url: str) -> None:
        self.peer = Peer(name=name, model=settings.model)
        self._any_model = settings.model is None
        self._answers_as: str | None = None  # the model that replies named, where none is configured
        self.root = url.rstrip("/").removesuffix("/v1")
        self._connect_s = settings.connect_timeout_s
        self._http = httpx2.AsyncClient(
            limits=httpx2.Limits(max_keepalive_connections=settings.concurrency, keepalive_expiry=_KEEP_ALIVE_S),
            trust_env=not is_near(url),
            verify=not url.startswith("http:"),  # the system's certificates take a tenth of a second to read
            event_hooks={"request": [_carry_trace], "response": [bound]},
            follow_redirects=False,  # a redirect would carry texts, maybe the key, to a host that nobody configured
        )
        self._client = _Client(
            api_key=settings.api_key or "",
            base_url=url,
            max_retries=0,
            http_client=self._http,
            _enforce_credentials=False,
        )

    async def get(self, path: str, field: str, kind: type[T], timeout_s: float, default: T | None = None) -> T:
        """That field of the reply, or `default` where it is missing; None: it must be there.

        A path with a leading slash counts from the server's root, another from its /v1.
        """
        async with self._seam(timeout_s):
            reply = await self._client.get(
                self._address(path), cast_to=httpx2.Response, options=self._options(timeout_s)
            )
            return _field(reply.content, field, kind, default)

    async def read(self, path: str, kind: type[T], timeout_s: float) -> T:
        """The whole reply to a GET, read as `kind`."""
        async with self._seam(timeout_s):
            reply = await self._client.get(
                self._address(path), cast_to=httpx2.Response, options=self._options(timeout_s)
            )
            return msgspec.json.decode(reply.content, type=kind)

    async def post(
        self, path: str, body: Body, field: str, kind: type[T], timeout_s: float, default: T | None = None
    ) -> T:
        """That field of the reply, as `get` reads it."""
        return await self._post(path, body, timeout_s, lambda content: _field(content, field, kind, default))

    async def reply(self, path: str, body: Body, kind: type[T], timeout_s: float) -> T:
        """The whole reply, read as `kind`."""
        return await self._post(path, body, timeout_s, lambda content: msgspec.json.decode(content, type=kind))

    async def complete(self, path: str, body: Body, timeout_s: float) -> Completion:
        """A completion that has a choice and reports no error."""
        completion = await self._post(path, body, timeout_s, _COMPLETION.decode)
        self.check(completion)
        if not completion.choices:
            raise UpstreamBadReply(self.peer.name, f"{self.peer.name} sent a reply without a choice")
        return completion

    async def stream(self, path: str, body: Body, timeout_s: float) -> AsyncGenerator[Completion, None]:
        """The chunks until the server ends them; closing the generator closes the connection."""
        until = asyncio.get_running_loop().time() + timeout_s
        content = _encoded({**body, "stream": True})
        async with self._seam(timeout_s):
            chunks = await self._client.post(
                path,
                cast_to=object,
                content=content,
                options=self._options(timeout_s),
                stream=True,
                stream_cls=AsyncStream[object],
            )
        try:
            if "json" in chunks.response.headers.get("content-type", ""):
                # No stream: an error with a status of 200, or the whole reply of a server that cannot stream.
                async with self._seam(until - asyncio.get_running_loop().time()):
                    content = await chunks.response.aread()
                    whole = _COMPLETION.decode(content) if content.lstrip().startswith(b"{") else None
                if whole is not None:
                    yield whole
                    return
            while (chunk := await self._next(chunks, until)) is not None:
                yield chunk
        finally:
            await chunks.close()

    def check(self, completion: Completion, tokens: TokenCount | None = None) -> None:
        """Raise the error that a gateway sent with a status of 200, and NoSuchModel if another model replies than did.

        Servers such as llama.cpp's ignore the name in a request: one that was restarted replies with what it has now.
        """
        if completion.failure:
            raise named_error(completion.failure, self.peer, tokens)
        if self._any_model and isinstance(completion.model, str):
            before, self._answers_as = self._answers_as, completion.model
            if before not in (None, completion.model):
                raise NoSuchModel(self.peer.name, f"{self.peer.name} has another model than before", tokens=tokens)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _post(self, path: str, body: Body, timeout_s: float, read: Callable[[bytes], T]) -> T:
        content = _encoded(body)
        async with self._seam(timeout_s):
            reply = await self._client.post(
                self._address(path), cast_to=httpx2.Response, content=content, options=self._options(timeout_s)
            )
            return read(reply.content)

    async def _next(self, chunks: AsyncStream[object], until: float) -> Completion | None:
        async with self._seam(until - asyncio.get_running_loop().time()):
            chunk = await anext(chunks, None)
            return None if chunk is None else msgspec.convert(chunk, Completion)

    @asynccontextmanager
    async def _seam(self, timeout_s: float) -> AsyncIterator[None]:
        """`timeout_s` is for all of it: the SDK's own is for each gap between bytes."""
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except UpstreamError:
            raise
        except FOREIGN as exc:
            raise translated(exc, self.peer) from exc

    def _address(self, path: str) -> str:
        return f"{self.root}{path}" if path.startswith("/") else path

    def _options(self, timeout_s: float) -> Any:
        key = {} if self._client.api_key else {"Authorization": Omit()}
        return {
            "headers": key,
            "timeout": httpx2.Timeout(timeout_s, connect=min(timeout_s, self._connect_s), pool=None),
        }


async def _carry_trace(request: httpx2.Request) -> None:
    request.headers.update(trace_headers())


def _field(content: bytes, field: str, kind: type[T], default: T | None) -> T:
    raw = msgspec.json.decode(content, type=dict[str, msgspec.Raw]).get(field)
    if raw is None or bytes(raw) == b"null":
        if default is None:
            raise ValueError(field)
        return default
    return msgspec.json.decode(raw, type=kind)


def _encoded(body: Body) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as exc:
        raise InvalidRequest("the text contains half of a surrogate pair, which is not a character") from exc


def is_near(url: str) -> bool:
    """Whether the host is on this machine or in its private network: no proxy stands between us and it."""
    host = httpx2.URL(url).host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))
    return address.is_private or address.is_loopback or address.is_link_local
