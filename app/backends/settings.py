"""The settings of backends, routing and budgets; `app.config.settings` reads them."""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Dollars = Annotated[float, Meta(ge=0)]


Dialect = Literal["tei", "jina", "voyage", "infinity", "cohere", "score"]
"""The shape in which a reranker's server is asked: see `app.backends.openai_compatible.reranking`."""


class PriceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dollars per million tokens, in place of the price list's. `output` is that of thinking too; `as_of` a date.

    `per_1000_requests` is what the requests themselves cost, as the searches of a reranker.
    """

    input: Dollars
    output: Dollars
    cached: Dollars | None = None
    per_1000_requests: Dollars = 0.0
    as_of: str = ""


class BackendSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[backends.NAME]`.

    `kind` is a provider's. `model` None: the provider's default, or what the server says it has. `url` is the root of
    the OpenAI-style API, with its /v1, or those of several servers of one model, with commas between; for gemini it
    replaces Google's. A Gemini without a key but with `project` is reached through Google Cloud. `dialect` is how a
    reranker's server is asked; None: it is tried out. `device` is where torch runs a cross-encoder; None: a GPU if
    there is one.

    `timeout_s` is for one attempt, `first_token_s` for the first sign of life of a streamed one. `concurrency` calls
    run at once, `queue` more may wait: these and the limits a minute are for each server. `hedge_after_s`: if the first
    token has not come by then, a second call is made and the slower one given up. `retries` are those after the first
    attempt.
    """

    kind: str
    model: str | None = None
    url: str | None = None
    api_key: str | None = None
    project: str | None = None
    location: str | None = None
    service_tier: Literal["standard", "flex", "priority"] | None = None
    dialect: Dialect | None = None
    device: str | None = None
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

    @property
    def urls(self) -> tuple[str, ...]:
        """Of each server; () where none is needed."""
        return tuple(url.strip() for url in self.url.split(",")) if self.url else ()

    def each(self) -> "tuple[BackendSettings, ...]":
        """The settings of each server."""
        return tuple(msgspec.structs.replace(self, url=url) for url in self.urls) or (self,)


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


def model_or_auto(name: str) -> str:
    """The backend of calls that need a language model, where `name` serves requests: "auto" for one that is none."""
    return AUTO if name in RESERVED else name


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def name_problem(name: str) -> str:
    """Why a backend cannot be called that; "" if it can."""
    if name in RESERVED:
        return f"{name!r} is reserved; choose another name"
    if not _NAME.fullmatch(name):
        return (
            "a backend name must be 1 to 64 letters, digits, dots, dashes or underscores, "
            "and start with a letter or digit"
        )
    return ""
