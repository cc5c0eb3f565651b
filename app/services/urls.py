"""Which URLs and addresses of a client's the service may fetch from. Pure: nothing is resolved or connected here."""

import ipaddress
import re
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from app.errors import InvalidRequest

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
