"""What is known of a kind of backend before any server is asked: its record, and what completes its settings."""

import re
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from app.backends.base import Adapter, Capability
from app.backends.settings import BackendSettings
from app.errors import ConfigError

# Printable ASCII: anything else cannot travel in an HTTP header.
_KEY = re.compile(r"\s*[!-~]+\s*")

_ADDRESS = re.compile(r"https?://[^\s,\\^|`<>\"{}\x00-\x1f\x7f]+")

Complete = Callable[["Provider", str, BackendSettings, Mapping[str, str]], BackendSettings]
"""Settings of the backend of that name with key, URL and model from the environment. Raises ConfigError."""


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of backend. Its package declares it; `app.backends.registry` lists it.

    Declaring one imports no SDK: `load` does, and `open`, which makes an adapter for the backend of that name.
    `may_offer` is what its servers can do at best. `url` and `model` are the defaults.
    """

    kind: str
    may_offer: frozenset[Capability]
    load: Callable[[], object]
    open: Callable[[str, BackendSettings], Adapter]

    complete: Complete = lambda provider, name, settings, environ: with_url(provider, name, settings, environ)
    url: str | None = None
    model: str | None = None
    url_variable: str = ""
    key_variables: tuple[str, ...] = ()
    """In the order in which they count; people are told of the last one."""

    own_settings: tuple[str, ...] = ()
    """Keys of its section that mean nothing to the other kinds."""

    tools: Literal["any", "optional", "none"] = "any"
    """Whether it takes a client's tools; "optional": it cannot be made to call one."""
    tools_hint: str = "choose a model that does"
    """What to do when it takes none."""

    probe_first: bool = False
    """Even a plain chat depends on what the first probe finds out."""

    local: bool = False
    """It runs on the user's own hardware: its tokens cost nothing, but its GPU may."""
    trace_name: str = ""
    """What OpenTelemetry's conventions call it; "": by its kind."""

    price_list_id: str | None = None
    """What genai-prices calls it; None: it is looked up by its URL, or by `price_list_url` if it has none."""
    price_list_url: str | None = None
    price_factors: Mapping[str, float] = {}
    """Of the list's price, by service tier, where the list has no tiers."""

    @property
    def variable(self) -> str:
        """The environment variable that declares such a backend by itself; "": none does."""
        return self.url_variable or (self.key_variables[-1] if self.key_variables else "")

    def is_declared(self, environ: Mapping[str, str]) -> bool:
        """Whether the environment brings such a backend without any configuration."""
        return bool(_first(environ, (self.url_variable,) if self.url_variable else self.key_variables))

    def key(self, name: str, settings: BackendSettings, environ: Mapping[str, str]) -> str | None:
        """The key to use. Raises ConfigError for one that cannot be sent."""
        key = settings.api_key or _first(environ, self.key_variables)
        if key and not _KEY.fullmatch(key):
            places = " and ".join(("api_key", *self.key_variables))
            raise ConfigError(f"[backends.{name}]: the API key contains invalid characters; check {places}")
        return key


def with_url(provider: Provider, name: str, settings: BackendSettings, environ: Mapping[str, str]) -> BackendSettings:
    """For a server at a URL, or several of the same model at theirs."""
    key = provider.key(name, settings, environ)
    url = settings.url or environ.get(provider.url_variable) or provider.url
    if not url:
        also = f", or set {provider.url_variable}" if provider.url_variable else ""
        raise ConfigError(f'[backends.{name}] needs a url, as in url = "http://127.0.0.1:8001/v1"{also}')
    urls = [_rooted(checked_url(name, one.strip())) for one in url.split(",")]
    if repeated := [one for one in urls if urls.count(one) > 1]:
        raise ConfigError(f"[backends.{name}]: url names {repeated[0]} twice; name each server once")
    return msgspec.structs.replace(settings, api_key=key, url=",".join(urls), model=settings.model or provider.model)


def _rooted(url: str) -> str:
    """With a /v1 where it has no path."""
    url = url.rstrip("/")
    return url if urlsplit(url).path else f"{url}/v1"


def checked_url(name: str, url: str) -> str:
    """The URL as it stands, for adapters check none. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        valid = _ADDRESS.fullmatch(url) and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"[backends.{name}]: url {url!r} is not like http://127.0.0.1:8001/v1")
    return url


def _first(environ: Mapping[str, str], variables: tuple[str, ...]) -> str | None:
    return next((environ[variable] for variable in variables if environ.get(variable)), None)
