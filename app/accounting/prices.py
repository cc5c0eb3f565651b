"""What tokens cost: the settings' prices, else those of the package genai-prices, as they were when it was released.

The package's list is data on disk: it is never updated over the network.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any, Literal

import msgspec
import structlog

from app.accounting.budgets import MOST
from app.backends.gemini import GEMINI_MODEL
from app.backends.registry import PROVIDERS, is_local
from app.backends.settings import BackendSettings
from app.domain import TokenCount

_VERIFIED = re.compile(r"verified on (20\d\d-[01]\d-[0-3]\d)", re.IGNORECASE)
_PICO_PER_MILLIONTH = 10**6

log = structlog.get_logger()


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Dollars per million tokens. Thinking is billed as output; `cached` is for the cached part of the input."""

    input: float
    cached: float
    output: float

    def pico(self, tokens: TokenCount) -> int:
        """What these tokens cost, in picodollars."""
        cached = min(tokens.cached, tokens.input)
        millionths = (
            (tokens.input - cached) * self.input
            + cached * self.cached
            + (tokens.output + tokens.thinking) * self.output
        )
        return round(min(millionths * _PICO_PER_MILLIONTH, MOST))


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend's calls cost, and whence that is known.

    `source` is "settings", the price list's name and version, "gpu" (by the hour), "local" (own hardware without a
    price: nothing) or "unknown" (counted as nothing, and shown as unpriced). `above` holds the rates of calls with more
    input tokens than so many, in increasing order.
    """

    source: str
    rates: Rates | None = None
    above: tuple[tuple[int, Rates], ...] = ()
    gpu_usd_per_hour: float = 0.0
    as_of: str = ""

    def pico(self, tokens: TokenCount, gpu_s: float = 0.0) -> int:
        """What a call costs, in picodollars."""
        by_time = min(gpu_s * self.gpu_usd_per_hour / 3600 * _PICO_PER_MILLIONTH**2, MOST)
        rates = self.rates_for(tokens.input)
        return round(by_time) + (rates.pico(tokens) if rates else 0)

    def rates_for(self, input_tokens: int) -> Rates | None:
        """Long prompts may be dearer."""
        dearer = [rates for start, rates in self.above if input_tokens > start]
        return dearer[-1] if dearer else self.rates


UNKNOWN = Price(source="unknown")
LOCAL = Price(source="local")


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for in the price list. `url` tells whose API an OpenAI-style server is."""

    kind: str
    model: str
    url: str | None = None
    tier: Literal["standard", "flex", "priority"] | None = None


Lookup = Callable[[Offer, datetime], Price | None]
"""The price of an API's model at a moment; None when the list does not have it."""


class Prices:
    """The price of every backend. `now` tells seconds since 1970: some prices change with the hour."""

    def __init__(
        self, backends: Mapping[str, BackendSettings], now: Callable[[], float], lookup: Lookup | None = None
    ) -> None:
        self._backends = backends
        self._now = now
        self._lookup = lookup or list_price
        self._hour = 0
        self._known: dict[tuple[str, str], Price] = {}
        self._warned: set[tuple[str, str]] = set()

    def of(self, backend: str, model: str) -> Price:
        """Of calls to this model there. An unknown price is warned of once."""
        hour = int(self._now() // 3600)
        if hour != self._hour:
            self._hour = hour
            self._known.clear()
        found = self._known.get((backend, model))
        if found is None:
            found = self._known[backend, model] = self._find(backend, model)
        return found

    def load(self) -> None:
        """Read the price list (0.3 s), which otherwise the first call waits for."""
        self.listed(Offer(kind="gemini", model=GEMINI_MODEL))

    def listed(self, offer: Offer) -> Price | None:
        """What the price list says just now, whatever is configured."""
        return self._lookup(offer, datetime.fromtimestamp(self._now(), UTC))

    def _find(self, backend: str, model: str) -> Price:
        settings = self._backends.get(backend)
        price = UNKNOWN if settings is None else self._priced(settings, model)
        if price is UNKNOWN and (backend, model) not in self._warned:
            self._warned.add((backend, model))
            fix = f"set price in [backends.{backend}]"
            log.warning("no price is known: calls are counted as free", backend=backend, model=model, fix=fix)
        return price

    def _priced(self, settings: BackendSettings, model: str) -> Price:
        told = settings.price
        if told is not None:
            cached = told.input if told.cached is None else told.cached
            rates = Rates(input=told.input, cached=cached, output=told.output)
            return Price(source="settings", rates=rates, as_of=told.as_of)
        if settings.gpu_usd_per_hour is not None:
            return Price(source="gpu", gpu_usd_per_hour=settings.gpu_usd_per_hour)
        if is_local(settings.kind):
            return LOCAL
        offer = Offer(kind=settings.kind, model=model, url=settings.url, tier=settings.service_tier)
        return self.listed(offer) or UNKNOWN


def list_price(offer: Offer, at: datetime) -> Price | None:
    """From genai-prices, as it was released."""
    from genai_prices import __version__, data_snapshot

    ours = PROVIDERS[offer.kind]
    # A model's id may have a path before it ("models/..."), which a provider that is looked up by its URL means.
    name = offer.model.rpartition("/")[2] if ours.price_list_id else offer.model
    url = None if ours.price_list_id else offer.url or ours.price_list_url
    try:
        provider, model = data_snapshot.get_snapshot().find_provider_model(name, None, ours.price_list_id, url)
    except LookupError:
        return None
    own = any(model is one for one in provider.models)  # not borrowed from another provider's list
    listed = model.get_prices(at, {"service_tier": offer.tier} if offer.tier and own else None)
    entry = _Listed(listed, Decimal(str(ours.price_factors.get(offer.tier or "", 1))))
    rates = entry.rates(0)
    if rates is None:
        return None
    return Price(
        source=f"genai-prices {__version__}",
        rates=rates,
        above=tuple((start, dear) for start in entry.starts() if (dear := entry.rates(start + 1))),
        as_of=_verified(model.price_comments) or _newest_date(),
    )


class _Listed:
    """One entry of the list; its prices are dollars per million, or tiers of them by the input's length."""

    def __init__(self, entry: Any, factor: Decimal) -> None:
        self._prices = entry.input_mtok, entry.cache_read_mtok, entry.output_mtok
        self._factor = factor

    def starts(self) -> list[int]:
        """The lengths of input above which calls get dearer."""
        return sorted({tier.start for price in self._prices for tier in getattr(price, "tiers", ())})

    def rates(self, input_tokens: int) -> Rates | None:
        """For calls of so much input. None without both prices: half a price would be a wrong one."""
        given, cached, taken = (self._at(price, input_tokens) for price in self._prices)
        if given is None or taken is None:
            return None
        return Rates(input=given, cached=given if cached is None else cached, output=taken)

    def _at(self, price: Any, input_tokens: int) -> float | None:
        if price is None:
            return None
        tiers = [tier.price for tier in getattr(price, "tiers", ()) if input_tokens > tier.start]
        return float((tiers[-1] if tiers else getattr(price, "base", price)) * self._factor)


def _verified(comments: str | None) -> str:
    """The last day that the list's keepers say they looked at this price; "" if they say none."""
    return max(_VERIFIED.findall(comments or ""), default="")


@cache
def _newest_date() -> str:
    """The last day on which the list's keepers say they looked at any price: the list is not older."""
    from genai_prices import data_snapshot

    models = (model for provider in data_snapshot.get_snapshot().providers for model in provider.models)
    return max((_verified(model.price_comments) for model in models), default="")
