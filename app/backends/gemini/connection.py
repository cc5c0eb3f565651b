"""Google's client over an HTTP client of our own, and what became of each attempt on the wire."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Self

import httpx2
from google import genai
from google.auth.credentials import Credentials
from google.genai import types

from app.backends.gemini.replies import Reading
from app.config.backends import BackendSettings
from app.errors import ConfigError

_KEEP_OPEN_S = 60.0
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_EVERYWHERE = "global"
"""Google Cloud's location for whoever names none."""


class Attempt:
    """One call: what has been read of its reply, and the HTTP response as soon as there is one.

    As an async context it closes the response at its end. The SDK's nested generators would leave that to the garbage
    collector when a reader stops in mid-stream.
    """

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.response: httpx2.Response | None = None

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Responses that arrive within belong to this attempt."""
        token = _UNDER_WAY.set(self)
        try:
            yield
        finally:
            _UNDER_WAY.reset(token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.response is not None:
            await self.response.aclose()


_UNDER_WAY: ContextVar[Attempt | None] = ContextVar("attempt", default=None)


def connect(
    name: str, settings: BackendSettings, credentials: Credentials | None
) -> tuple[genai.Client, httpx2.AsyncClient]:
    """Both have to be closed. Raises ConfigError when there is no key nor project, or they cannot be used."""
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
    options = types.HttpOptions(base_url=settings.url, httpx_async_client=http)
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
    async def limit_connecting(request: httpx2.Request) -> None:
        # The SDK asks for no limits at all in each request. All but this one are the caller's total.
        request.extensions["timeout"] = {**request.extensions["timeout"], "connect": settings.connect_timeout_s}

    async def note_response(response: httpx2.Response) -> None:
        if (attempt := _UNDER_WAY.get()) is not None:
            attempt.response = response

    return httpx2.AsyncClient(
        limits=httpx2.Limits(
            max_connections=settings.concurrency,
            max_keepalive_connections=settings.concurrency,
            keepalive_expiry=_KEEP_OPEN_S,
        ),
        # A proxy in the environment is for the world outside, not for a server on this machine.
        mounts={f"all://{host}": None for host in _LOOPBACK},
        event_hooks={"request": [limit_connecting], "response": [note_response]},
    )


def _quieten() -> None:
    """Words that Google adds to its lists are no warning of ours, nor keys in the environment that we do not use."""
    warnings.filterwarnings("ignore", message=".* is not a valid ", category=UserWarning, module=r"google\.genai\.")
    logging.getLogger("google_genai").setLevel(logging.ERROR)
