"""Fetching what a client's URL names. Every URL that the service takes is fetched here, and nowhere else.

The connection goes to an address that was checked: a name is resolved once for each connection, all of its addresses
are checked (`app.services.urls`), and TLS still verifies the name. Redirects are followed by hand, each one checked as
the first URL was; no cookie, authorization or proxy of the environment's is involved, as httpcore knows of none.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import Any
from urllib.parse import urljoin

import httpcore2 as httpcore

from app.config.settings import FetchSettings
from app.errors import InvalidRequest, pointing_at
from app.services.urls import DEFAULT_PORTS, WebURL, may_connect, parse_url

MAX_REDIRECTS = 5

AT_ONCE = 16
"""Fetches of all requests together; further ones wait, within their time."""

_CONNECT_S = 5.0
_MOST_ADDRESSES = 4
"""Of a name, how many are tried."""

_REDIRECTS = (301, 302, 303, 307, 308)

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, for a port. Raises OSError."""


class SystemResolver:
    """Asks the operating system, in threads of its own: names that take long to resolve, which somebody may have made
    for that, must not hold up what else the service does in threads.
    """

    def __init__(self, look_up: Callable[..., Sequence[Any]] = socket.getaddrinfo) -> None:
        self._look_up = look_up
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="resolve")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a host. Raises OSError."""
        look_up = partial(self._look_up, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return list(dict.fromkeys(str(info[4][0]) for info in found))


class Fetcher:
    """Fetches by GET, within the bounds of the settings. `network` opens the connections, to addresses only."""

    def __init__(
        self,
        settings: FetchSettings,
        resolve: Resolve | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self._settings = settings
        self._ports = frozenset((*DEFAULT_PORTS.values(), *settings.ports))
        self._network = _CheckedNetwork(resolve or SystemResolver(), network or httpcore.AnyIOBackend(), settings.hosts)
        self._make_tls = tls
        self._tls: ssl.SSLContext | None = None
        self._places = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, url: str, media_types: Iterable[str], pointer: str) -> bytes:
        """The body, of one of these types. Raises InvalidRequest, pointing at the field `pointer`."""
        within_s = self._settings.timeout_s
        try:
            async with asyncio.timeout(within_s), self._places:
                return await self._follow(parse_url(url, self._ports), frozenset(media_types))
        except InvalidRequest as exc:
            raise pointing_at(pointer, str(exc)) from exc
        except TimeoutError as exc:
            raise pointing_at(pointer, f"fetching the URL took more than {within_s:g} s; send the content") from exc
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError, ValueError) as exc:
            raise pointing_at(pointer, "the URL's server cannot be reached, or broke off; try it in a browser") from exc

    async def _follow(self, url: WebURL, media_types: frozenset[str]) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            reply = await self._get(url, media_types)
            if isinstance(reply, bytes):
                return reply
            url = parse_url(urljoin(str(url), reply), self._ports)
        raise InvalidRequest(f"the URL redirects more than {MAX_REDIRECTS} times; give the last address")

    async def _get(self, url: WebURL, media_types: frozenset[str]) -> bytes | str:
        """The body, or where the server redirects to. Each has a connection of its own."""
        if self._tls is None and url.scheme == "https":
            self._tls = await asyncio.to_thread(self._make_tls)
        headers = {
            "Host": url.authority,
            "User-Agent": "winnow",
            "Accept": ", ".join(sorted(media_types)),
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        pool = httpcore.AsyncConnectionPool(self._tls, network_backend=self._network, max_connections=1)
        async with pool, pool.stream("GET", str(url), headers=list(headers.items())) as reply:
            told = {name.lower(): _decoded(value) for name, value in reply.headers}
            if reply.status in _REDIRECTS and (target := told.get(b"location")):
                return target
            if reply.status != 200:
                raise InvalidRequest(f"the URL's server answered with HTTP status {reply.status}")
            self._check_head(told, media_types)
            return await self._body(reply)

    def _check_head(self, told: dict[bytes, str], media_types: frozenset[str]) -> None:
        media_type = told.get(b"content-type", "").partition(";")[0].strip().lower()
        if media_type not in media_types:
            raise InvalidRequest(f"the URL's Content-Type is none of {', '.join(sorted(media_types))}")
        # Compressed, a small body could become any size; pictures are compressed already.
        if told.get(b"content-encoding", "identity").strip().lower() != "identity":
            raise InvalidRequest("the URL's server sends a compressed body although asked not to; send the content")
        length = told.get(b"content-length", "0").strip()
        if length.isdecimal() and int(length[:19]) > self._settings.max_bytes:
            raise self._too_large()

    async def _body(self, reply: httpcore.Response) -> bytes:
        body = bytearray()
        async with aclosing(reply.aiter_stream()) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > self._settings.max_bytes:
                    raise self._too_large()
        return bytes(body)

    def _too_large(self) -> InvalidRequest:
        limit = self._settings.max_bytes
        return InvalidRequest(f"what the URL names has more than {limit} bytes (max_bytes of [fetch]); shrink it")


def _decoded(header: bytes) -> str:
    """Locations with letters beyond ASCII are UTF-8, as browsers take them to be."""
    try:
        return header.decode()
    except UnicodeDecodeError:
        return header.decode("latin-1")


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Resolves a name, checks every address of it, and connects to one of those: nothing is resolved a second time."""

    def __init__(self, resolve: Resolve, network: httpcore.AsyncNetworkBackend, allowed_hosts: Iterable[str]) -> None:
        self._resolve, self._network = resolve, network
        self._allowed = frozenset(host.lower().removesuffix(".") for host in allowed_hosts)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._checked(host, port)
        failure: Exception | None = None
        for address in addresses[:_MOST_ADDRESSES]:
            try:
                return await self._network.connect_tcp(address, port, timeout=_CONNECT_S, socket_options=socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout, OSError) as exc:
                failure = exc
        raise httpcore.ConnectError("none of the addresses answers") from failure

    async def _checked(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as exc:
            raise InvalidRequest("the URL's host cannot be resolved; check its name") from exc
        intranet = host in self._allowed
        if not addresses or not all(may_connect(address, intranet=intranet) for address in addresses):
            raise InvalidRequest(
                "the URL's host has no public address; send the content, or have the host allowed by hosts of [fetch]"
            )
        return addresses
