"""What can be told about backends, routing and money; read by `app.config.settings`."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from app.errors import ConfigError

GEMINI_MODEL = "gemini-3.1-flash-lite"
"""The configured default of kind "gemini"; a retired model is one setting away from its successor."""

Kind = Literal["gemini", "vllm", "ollama", "openai"]

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Dollars = Annotated[float, Meta(ge=0)]


class PriceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dollars per million tokens, in place of the price list's. `output` is that of thinking too; `as_of` a date."""

    input: Dollars
    output: Dollars
    cached: Dollars | None = None
    as_of: str = ""


class BackendSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[backends.NAME]`.

    `model` None: gemini's default, or what the server says it has. `url` is the root of the OpenAI-style API, with its
    /v1; for gemini it replaces Google's. A Gemini without a key but with `project` is reached through Google Cloud.

    `timeout_s` is for one attempt, `first_token_s` for the first sign of life of a streamed one. `concurrency` calls
    run at once, `queue` more may wait. `hedge_after_s`: if the first token has not come by then, a second call is made
    and the slower one given up. `retries` are those after the first attempt.
    """

    kind: Kind
    model: str | None = None
    url: str | None = None
    api_key: str | None = None
    project: str | None = None
    location: str | None = None
    service_tier: Literal["standard", "flex", "priority"] | None = None
    timeout_s: Seconds = 180.0
    first_token_s: Seconds = 30.0
    connect_timeout_s: Seconds = 5.0
    retries: Annotated[int, Meta(ge=0, le=10)] = 2
    hedge_after_s: Seconds | None = None
    concurrency: Count = 64
    queue: Annotated[int, Meta(ge=0)] = 1000
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    price: PriceSettings | None = None
    gpu_usd_per_hour: Dollars | None = None
    daily_usd: Dollars | None = None
    monthly_usd: Dollars | None = None


class RoutingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`auto` is the order of preference; () means: as they are declared.

    After `failures` failures in a row a backend rests for `rest_s`, twice as long each time up to `longest_rest_s`.
    `deadline_s` is for a whole request that names none.
    """

    auto: tuple[str, ...] = ()
    failures: Count = 5
    rest_s: Seconds = 5.0
    longest_rest_s: Seconds = 60.0
    deadline_s: Seconds = 300.0


class BudgetSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dollars that may be spent in a day and a month (UTC): in total, and by `keys`, "*" for each that is not named."""

    daily_usd: Dollars | None = None
    monthly_usd: Dollars | None = None
    keys: dict[str, "KeyBudget"] = {}


class KeyBudget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one caller may spend."""

    daily_usd: Dollars | None = None
    monthly_usd: Dollars | None = None


AUTO = "auto"

RESERVED = (AUTO, "none", "extractive")

OLLAMA_URL = "http://127.0.0.1:11434"

_KEY = re.compile(r"\s*[!-~]+\s*")

_ADDRESS = re.compile(r"https?://[^\s\\^|`<>\"{}\x00-\x1f\x7f]+")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_KEY_VARIABLES: Mapping[Kind, tuple[str, ...]] = {
    "gemini": ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    "vllm": ("VLLM_API_KEY",),
    "ollama": ("OLLAMA_API_KEY",),
    "openai": (),
}
"""No variable for "openai": a key of one service must not travel to another one's URL."""

_URL_VARIABLES: Mapping[Kind, str] = {"vllm": "VLLM_URL", "ollama": "OLLAMA_URL"}


def name_problem(name: str) -> str:
    """Why a backend cannot be called that; "" if it can."""
    if name in RESERVED:
        return f"{name!r} is always there and cannot be declared; take another name"
    if not _NAME.fullmatch(name):
        return "a backend's name has 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first"
    return ""


def discovered(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The backends that need no configuration, by name: those that the environment has a URL or a key for."""
    found: dict[str, dict[str, Any]] = {}
    for kind, variable in _URL_VARIABLES.items():
        if environ.get(variable):
            found[kind] = {"kind": kind}
    if _first(environ, _KEY_VARIABLES["gemini"]):
        found["gemini"] = {"kind": "gemini"}
    return found


def complete(name: str, told: BackendSettings, environ: Mapping[str, str]) -> BackendSettings:
    """With key, URL and model from where they are known. Raises ConfigError naming what is missing."""
    variables = _KEY_VARIABLES[told.kind]
    key = told.api_key or _first(environ, variables)
    if key and not _KEY.fullmatch(key):
        raise ConfigError(f"[backends.{name}]: its key has characters that no key has; look at {_places(variables)}")
    if told.kind == "gemini":
        if not key and not told.project:
            raise ConfigError(f"[backends.{name}] needs a key: set GEMINI_API_KEY, or api_key or project there")
        key = None if told.project and not told.api_key else key
        model = told.model or GEMINI_MODEL
        return msgspec.structs.replace(told, api_key=key, model=model, url=told.url and _checked_url(name, told.url))
    return msgspec.structs.replace(told, api_key=key, url=_url(name, told, environ))


def _url(name: str, told: BackendSettings, environ: Mapping[str, str]) -> str:
    variable = _URL_VARIABLES.get(told.kind, "")
    url = told.url or environ.get(variable) or (OLLAMA_URL if told.kind == "ollama" else None)
    if not url:
        also = f", or set {variable}" if variable else ""
        raise ConfigError(f'[backends.{name}] needs a url, as in url = "http://127.0.0.1:8001/v1"{also}')
    url = _checked_url(name, url).rstrip("/")
    return url if urlsplit(url).path else f"{url}/v1"


def _checked_url(name: str, url: str) -> str:
    """The one place that says what an address is: adapters take it as it stands."""
    try:
        parts = urlsplit(url)
        fine = _ADDRESS.fullmatch(url) and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise ConfigError(f"[backends.{name}]: url {url!r} is not like http://127.0.0.1:8001/v1")
    return url


def _places(variables: tuple[str, ...]) -> str:
    return " and ".join(("api_key", *variables))


def _first(environ: Mapping[str, str], variables: tuple[str, ...]) -> str | None:
    return next((environ[variable] for variable in variables if environ.get(variable)), None)
