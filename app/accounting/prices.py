"""Prices of tokens: those of the settings, or else those of the package genai-prices.

The package's list is as old as its release: it is never updated over the network.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any, Literal

import msgspec
import structlog

from app.accounting.budgets import MAX_CALL_PICO
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
        """The cost of these tokens in picodollars."""
        cached = min(tokens.cached or 0, tokens.input)
        millionths = (
            (tokens.input - cached) * self.input
            + cached * self.cached
            + (tokens.output + tokens.thinking) * self.output
        )
        return round(min(millionths * _PICO_PER_MILLIONTH, MAX_CALL_PICO))

    def halved(self) -> "Rates":
        """Half of each."""
        return Rates(input=self.input / 2, cached=self.cached / 2, output=self.output / 2)


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """The price of a backend's calls, and its source.

    `source` is "settings", the price list's name and version, "gpu" (by the hour), "local" (own hardware without
    a price: free) or "unknown" (counted as free, and reported as unpriced). `above` holds the rates of calls with more
    input tokens than a threshold, in increasing order.
    """

    source: str
    rates: Rates | None = None
    above: tuple[tuple[int, Rates], ...] = ()
    gpu_usd_per_hour: float = 0.0
    per_1000_requests: float = 0.0
    as_of: str = ""

    def pico(self, tokens: TokenCount, gpu_s: float = 0.0, requests: int = 1) -> int:
        """The cost of a call in picodollars."""
        by_request = min(requests * self.per_1000_requests / 1000 * _PICO_PER_MILLIONTH**2, MAX_CALL_PICO)
        by_time = min(gpu_s * self.gpu_usd_per_hour / 3600 * _PICO_PER_MILLIONTH**2, MAX_CALL_PICO)
        rates = self.rates_for(tokens.input)
        return round(by_time + by_request) + (rates.pico(tokens) if rates else 0)

    def halved(self) -> "Price":
        """That of a batch."""
        above = tuple((start, rates.halved()) for start, rates in self.above)
        rates = self.rates and self.rates.halved()
        return msgspec.structs.replace(self, source=f"{self.source}, batch", rates=rates, above=above)

    def rates_for(self, input_tokens: int) -> Rates | None:
        """Long prompts may be more expensive."""
        tiers = [rates for start, rates in self.above if input_tokens > start]
        return tiers[-1] if tiers else self.rates


UNKNOWN = Price(source="unknown")
LOCAL = Price(source="local")


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What to look up in the price list. `url` identifies the provider of an OpenAI-style API."""

    kind: str
    model: str
    url: str | None = None
    tier: Literal["standard", "flex", "priority"] | None = None


Lookup = Callable[[Offer, datetime], Price | None]
"""The price of an API's model at a moment; None if it is not listed."""


class Prices:
    """The price of every backend. `now` is in seconds since 1970: some prices change with the hour."""

    def __init__(
        self, backends: Mapping[str, BackendSettings], now: Callable[[], float], lookup: Lookup | None = None
    ) -> None:
        self._backends = backends
        self._now = now
        self._lookup = lookup or list_price
        self._hour = 0
        self._cache: dict[tuple[str, str], Price] = {}
        self._warned: set[tuple[str, str]] = set()

    def of(self, backend: str, model: str) -> Price:
        """The price of calls to this model. An unknown price is logged once."""
        hour = int(self._now() // 3600)
        if hour != self._hour:
            self._hour = hour
            self._cache.clear()
        price = self._cache.get((backend, model))
        if price is None:
            price = self._cache[backend, model] = self._find(backend, model)
        return price

    def load(self) -> None:
        """Read the price list, which takes 0.3 s, so that the first call need not wait for it."""
        self.listed(Offer(kind="gemini", model=GEMINI_MODEL))

    def listed(self, offer: Offer) -> Price | None:
        """The list's price at this moment, whatever is configured."""
        return self._lookup(offer, datetime.fromtimestamp(self._now(), UTC))

    def _find(self, backend: str, model: str) -> Price:
        settings = self._backends.get(backend)
        price = UNKNOWN if settings is None else self._priced(settings, model)
        if price is UNKNOWN and (backend, model) not in self._warned:
            self._warned.add((backend, model))
            fix = f"set price in [backends.{backend}]"
            log.warning("no known price: calls are counted as free", backend=backend, model=model, fix=fix)
        return price

    def _priced(self, settings: BackendSettings, model: str) -> Price:
        if (own := settings.price) is not None:
            cached = own.input if own.cached is None else own.cached
            rates = Rates(input=own.input, cached=cached, output=own.output)
            return Price(source="settings", rates=rates, per_1000_requests=own.per_1000_requests, as_of=own.as_of)
        if settings.gpu_usd_per_hour is not None:
            return Price(source="gpu", gpu_usd_per_hour=settings.gpu_usd_per_hour)
        if is_local(settings.kind):
            return LOCAL
        offer = Offer(kind=settings.kind, model=model, url=next(iter(settings.urls), None), tier=settings.service_tier)
        return self.listed(offer) or UNKNOWN


def list_price(offer: Offer, at: datetime) -> Price | None:
    """The price in the installed release of genai-prices."""
    from genai_prices import __version__, data_snapshot

    ours = PROVIDERS[offer.kind]
    # A path before a model's id, as in "models/...", is a part of the id only where a URL identifies the provider.
    name = offer.model.rpartition("/")[2] if ours.price_list_id else offer.model
    url = None if ours.price_list_id else offer.url or ours.price_list_url
    try:
        provider, model = data_snapshot.get_snapshot().find_provider_model(name, None, ours.price_list_id, url)
    except LookupError:
        return None
    own = any(model is one for one in provider.models)  # not borrowed from another provider's list
    listed = model.get_prices(at, {"service_tier": offer.tier} if offer.tier and own else None)
    prices = listed.input_mtok, listed.cache_read_mtok, listed.output_mtok
    factor = Decimal(str(ours.price_factors.get(offer.tier or "", 1)))
    rates = _rates_at(prices, 0, factor)
    if rates is None:
        return None
    starts = sorted({tier.start for price in prices for tier in getattr(price, "tiers", ())})
    return Price(
        source=f"genai-prices {__version__}",
        rates=rates,
        above=tuple((start, higher) for start in starts if (higher := _rates_at(prices, start + 1, factor))),
        as_of=_verified(model.price_comments) or _newest_date(),
    )


def _rates_at(prices: Sequence[Any], input_tokens: int, factor: Decimal) -> Rates | None:
    """The listed prices of input, cached input and output, for calls with so many input tokens.

    Each is dollars per million, or has tiers of them by the length of the input. None without a price for both input
    and output: half a price would be a wrong one.
    """

    def at(price: Any) -> float | None:
        if price is None:
            return None
        tiers = [tier.price for tier in getattr(price, "tiers", ()) if input_tokens > tier.start]
        return float((tiers[-1] if tiers else getattr(price, "base", price)) * factor)

    uncached, cached, output = map(at, prices)
    if uncached is None or output is None:
        return None
    return Rates(input=uncached, cached=uncached if cached is None else cached, output=output)


def _verified(comments: str | None) -> str:
    """The last day on which the list's maintainers say they verified this price; "" if they say none."""
    return max(_VERIFIED.findall(comments or ""), default="")


@cache
def _newest_date() -> str:
    """The last day on which the list's maintainers say they verified any price: the list is at least as new."""
    from genai_prices import data_snapshot

    models = (model for provider in data_snapshot.get_snapshot().providers for model in provider.models)
    return max((_verified(model.price_comments) for model in models), default="")
