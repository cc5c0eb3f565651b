"""Which URLs of clients may be fetched, and fetching them. Every URL that the service takes is fetched here alone.

The connection goes to an address that was checked: a name is resolved once for each connection, all of its addresses
are checked, and TLS still verifies the name. Redirects are followed by hand, each one checked as
the first URL was; no cookie, authorization or proxy of the environment's is involved, as httpcore knows of none.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import httpcore2 as httpcore

from app.config.settings import FetchSettings
from app.errors import InvalidRequest, pointing_at

MAX_URL_CHARACTERS = 4096

DEFAULT_PORTS = {"http": 80, "https": 443}

_UNSAFE = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
"""Parsers disagree about these: one takes a backslash for a slash, another one leaves out a tab."""

_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_CARRIES_IPV4 = tuple(
    map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0/96", "2002::/16", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32"))
)
"""IPv4-compatible and -mapped, 6to4, NAT64 and Teredo: a gateway may turn them into private IPv4 addresses."""

_ISATAP = (0x00005EFE, 0x02005EFE)

_SPECIAL = tuple(
    map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20"))
)
"""Not public although some Pythons take them to be: Azure's metadata service, protocol assignments, 6to4 relays,
documentation.
"""

_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")

_METADATA = ("100.100.100.200/32", "168.63.129.16/32", "169.254.0.0/16", "fd00:ec2::/32")
_NEVER = tuple(map(ipaddress.ip_network, ("0.0.0.0/8", *_METADATA)))
"""Not even for allowed hosts: "this host", and where clouds serve the machine's credentials."""


class WebURL(NamedTuple):
    """A URL that may be fetched, if its addresses may be. `host` is in lower case and ASCII, IPv6 without brackets."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """As in the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_url(text: str, ports: Collection[int]) -> WebURL:
    """The URL, taken apart strictly; `ports` may be connected to. Raises InvalidRequest that says what to change."""
    if len(text) > MAX_URL_CHARACTERS:
        raise InvalidRequest(f"the URL has more than {MAX_URL_CHARACTERS} characters; use a shorter one")
    if _UNSAFE.search(text):
        raise InvalidRequest("the URL has blanks, control characters or backslashes; percent-encode them")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise InvalidRequest("the URL is malformed; write https://host/path") from exc
    if parts.scheme not in DEFAULT_PORTS:
        raise InvalidRequest("only http:// and https:// URLs are fetched; send other pictures as base64")
    if "@" in parts.netloc:
        raise InvalidRequest("the URL has credentials before an @, which are not sent; leave them out")
    port = DEFAULT_PORTS[parts.scheme] if port is None else port
    if port not in ports:
        allowed = ", ".join(map(str, sorted(ports)))
        raise InvalidRequest(f"port {port} is not allowed ({allowed} are); ports of [fetch] in the settings adds one")
    query = f"?{parts.query}" if parts.query else ""
    target = quote((parts.path or "/") + query, safe="/?%:@!$&'()*+,;=~-._[]|")
    return WebURL(parts.scheme, _host(parts.netloc, parts.hostname or ""), port, target)


def _host(netloc: str, hostname: str) -> str:
    if netloc.startswith("["):
        try:
            if "%" in hostname:
                raise ValueError
            return str(ipaddress.IPv6Address(hostname))
        except ValueError as exc:
            raise InvalidRequest("the URL's IPv6 address is malformed, or has a zone; use the host's name") from exc
    try:
        # Lets full-width digits and dots become what they look like, before they are checked.
        host = hostname.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError as exc:
        raise InvalidRequest("the URL's host is not a valid name") from exc
    if not _NAME.fullmatch(host):
        raise InvalidRequest("the URL's host is not a valid name")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError as exc:  # decimal, octal, hexadecimal, or shortened: resolvers read them as IPv4
            raise InvalidRequest("the URL's host is a number; write an IPv4 address as four decimal parts") from exc
    return host


def may_connect(address: str, *, intranet: bool = False) -> bool:
    """Whether a request may go to the address; with `intranet` it may be private or loopback, too."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # with a zone, as link-local addresses have
        return False
    if any(ip in network for network in _NEVER) or ip.is_multicast or ip.is_link_local or ip.is_unspecified:
        return False
    if intranet:
        return not _carries_ipv4(ip)
    if not ip.is_global or ip.is_reserved or any(ip in network for network in _SPECIAL):
        return False
    return ip.version == 4 or (ip in _GLOBAL_IPV6 and not _carries_ipv4(ip))


def _carries_ipv4(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if ip.version == 4 or ip.is_loopback:
        return False
    return any(ip in network for network in _CARRIES_IPV4) or (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP


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
