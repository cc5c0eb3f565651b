"""What tokens cost."""

from datetime import UTC, datetime

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from app.accounting.budgets import in_usd
from app.accounting.prices import Offer, Price, Prices, Rates, list_price
from app.backends.gemini import GEMINI_MODEL
from app.backends.settings import BackendSettings, PriceSettings
from app.domain import TokenCount
from tests.fakes.money import NOON, Time

NOW = datetime.fromtimestamp(NOON, UTC)


def listed(model: str = GEMINI_MODEL, **more: object) -> Price | None:
    return list_price(Offer(kind="gemini", model=model, **more), NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tier", "rates"),
    [
        (None, (0.25, 0.025, 1.5)),
        ("standard", (0.25, 0.025, 1.5)),
        ("flex", (0.125, 0.0125, 0.75)),
        ("priority", (0.45, 0.045, 2.7)),
    ],
)
def test_geminis_default_model_by_tier(tier: str | None, rates: tuple[float, float, float]) -> None:
    """Input, cached, output as Google's page has them, with the day on which the list was checked."""
    price = listed(tier=tier)
    assert price is not None
    assert price.rates == Rates(input=rates[0], cached=rates[1], output=rates[2])
    assert (price.source, price.as_of) == ("genai-prices 0.2.3", "2026-10-14")


def test_a_models_full_name_is_understood() -> None:
    """As Google's API writes it."""
    assert listed(f"models/{GEMINI_MODEL}") == listed()


def test_long_prompts_are_dearer_where_the_list_says_so() -> None:
    """All tokens of a call above the limit have the higher rates."""
    price = listed("gemini-3.1-pro-preview")
    assert price is not None
    assert in_usd(price.pico(TokenCount(input=200_000))) == pytest.approx(0.4)
    assert in_usd(price.pico(TokenCount(input=200_001, output=1000))) == pytest.approx(200_001 * 4e-6 + 1000 * 18e-6)


def test_an_openai_price_is_found_by_its_address() -> None:
    """OpenAI's own, with its tiers; another server's models have no price."""
    flex = list_price(Offer(kind="openai", model="gpt-5-nano", url="https://api.openai.com/v1", tier="flex"), NOW)
    assert flex is not None
    assert flex.rates == Rates(input=0.025, cached=0.0025, output=0.2)
    assert list_price(Offer(kind="openai", model="gpt-5-nano", url="http://127.0.0.1:1/v1"), NOW) is None


def test_a_model_without_an_output_price_has_no_price() -> None:
    """Half a price would be a wrong one."""
    assert listed("gemini-embedding-001") is None
    assert listed("no-such-model") is None


def test_the_settings_price_goes_first() -> None:
    """Also for a local model; without a price for cached input that is as dear as any."""
    told = BackendSettings(
        kind="vllm", gpu_usd_per_hour=1.0, price=PriceSettings(input=2, output=4, as_of="2026-01-01")
    )
    price = Prices({"b": told}, Time()).of("b", "any")
    assert price.rates == Rates(input=2, cached=2, output=4)
    assert (price.source, price.as_of, price.gpu_usd_per_hour) == ("settings", "2026-01-01", 0.0)


def test_a_local_model_costs_its_gpus_time_or_nothing() -> None:
    """1.80 dollars an hour are half a thousandth a second."""
    backends = {"gpu": BackendSettings(kind="vllm", gpu_usd_per_hour=1.8), "own": BackendSettings(kind="ollama")}
    prices = Prices(backends, Time())
    assert in_usd(prices.of("gpu", "m").pico(TokenCount(input=10**6), gpu_s=3.0)) == pytest.approx(0.0015)
    assert (prices.of("own", "m").source, prices.of("own", "m").pico(TokenCount(input=10**6), 9.0)) == ("local", 0)


def test_an_unknown_price_is_warned_of_once() -> None:
    """It counts as nothing, and the log says how to mend it."""
    prices = Prices({"x": BackendSettings(kind="openai", url="http://127.0.0.1:1/v1")}, Time())
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert prices.of("x", "m").source == "unknown"
    assert [(line["log_level"], line["fix"]) for line in logs] == [("warning", "set price in [backends.x]")]


def test_prices_are_looked_up_anew_every_hour() -> None:
    """Some change with the hour."""
    asked = []

    def lookup(offer: Offer, at: datetime) -> Price | None:
        asked.append(at.hour)
        return Price(source="list", rates=Rates(input=at.hour, cached=0, output=0))

    time = Time()
    prices = Prices({"g": BackendSettings(kind="gemini")}, time, lookup)
    assert [prices.of("g", "m").rates, prices.of("g", "m").rates] == [Rates(input=12, cached=0, output=0)] * 2
    time.at += 3600
    prices.of("g", "m")
    assert asked == [12, 13]


def test_the_settings_price_of_cached_input_is_used() -> None:
    """Where it is given."""
    settings = BackendSettings(kind="vllm", price=PriceSettings(input=2, cached=0.5, output=4))
    assert Prices({"b": settings}, Time()).of("b", "any").rates == Rates(input=2, cached=0.5, output=4)


def test_a_model_without_a_price_for_cached_input_pays_the_full_one() -> None:
    """As for a provider that gives no discount."""
    price = list_price(Offer(kind="openai", model="gpt-4-turbo", url="https://api.openai.com/v1"), NOW)
    assert price is not None
    assert price.rates is not None
    assert price.rates.cached == price.rates.input > 0


def test_no_more_tokens_are_cached_than_there_are() -> None:
    """A server's wrong count must not make a call free."""
    assert Rates(input=1, cached=0, output=0).pico(TokenCount(input=10, cached=20)) == 0
    assert Rates(input=1, cached=1, output=0).pico(TokenCount(input=10, cached=20)) == 10 * 10**6


def test_the_highest_tier_below_the_length_applies() -> None:
    """From one token above its threshold on."""
    low, middle, high = (Rates(input=usd, cached=0, output=0) for usd in (1, 2, 3))
    price = Price(source="list", rates=low, above=((100, middle), (200, high)))
    assert [price.rates_for(length) for length in (100, 101, 200, 201)] == [low, middle, middle, high]


def test_time_and_tokens_add_up() -> None:
    """For a GPU by the hour whose tokens have a price as well."""
    price = Price(source="settings", rates=Rates(input=1, cached=0, output=0), gpu_usd_per_hour=3600)
    assert in_usd(price.pico(TokenCount(input=10**6), gpu_s=2)) == pytest.approx(3.0)


def test_each_model_without_a_price_is_warned_of() -> None:
    """Not only the first of its backend."""
    prices = Prices({"x": BackendSettings(kind="openai", url="http://127.0.0.1:1/v1")}, Time())
    with structlog.testing.capture_logs() as logs:
        prices.of("x", "m")
        prices.of("x", "n")
    assert [line["model"] for line in logs] == ["m", "n"]


tokens = st.integers(0, 10**9)
rates = st.decimals(0, 1000, places=4).map(float)


@given(tokens, st.floats(0, 1), tokens, tokens, rates, rates, rates)
def test_a_cost_is_the_sum_of_its_classes(
    given: int, share: float, output: int, thinking: int, fresh: float, cached: float, made: float
) -> None:
    """Thinking at the output's rate, the cached part of the input at its own; exact to a billionth of the cost."""
    used = TokenCount(input=given, cached=int(given * share), output=output, thinking=thinking)
    cost = in_usd(Rates(input=fresh, cached=cached, output=made).pico(used))
    expected = (used.input - used.cached) * fresh / 1e6 + used.cached * cached / 1e6 + (output + thinking) * made / 1e6
    assert cost == pytest.approx(min(expected, 10_000), rel=1e-9, abs=1e-12)
