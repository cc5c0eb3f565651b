"""Measuring the speed of backends, over fake servers on real sockets."""

from pathlib import Path

import msgspec
import pytest

from app.accounting.benchmarks import BENCHMARKS_FILE, Benchmark, read_benchmarks
from app.backends.settings import BackendSettings, BudgetSettings, PriceSettings
from app.config.settings import IndexSection, Settings
from app.errors import BudgetExceeded, MissingCapability, UnknownBackend, UpstreamError
from app.evaluation.speed import OUTPUT_TOKENS, RUNS, bench_services, measure, plan
from tests.fakes.faults import Fault
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.models import BRISK, gemini, openai_style
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.rerank_server import KEY, MODEL, RerankServer

pytestmark = pytest.mark.anyio

PRICE = PriceSettings(input=1.0, output=10.0)


def settings_of(home: Path, budgets: BudgetSettings | None = None, **backends: BackendSettings) -> Settings:
    return Settings(index=IndexSection(home=home), backends=backends, budgets=budgets or BudgetSettings())


async def measured(settings: Settings, *names: str) -> tuple[list[Benchmark], list[str]]:
    """The results, and the steps that were shown."""
    planned, steps = plan(settings, names), list[str]()
    async with bench_services(settings, planned) as (services, caller):
        return [await measure(services, one, caller, steps.append) for one in planned], steps


async def test_a_gpu_is_measured_and_kept(tmp_path: Path) -> None:
    """All figures are there, dollars follow from the hour's price, and the file in the home has them."""
    async with OpenAIServer() as server:
        gpu = msgspec.structs.replace(openai_style(server), gpu_usd_per_hour=3.6)
        [found], steps = await measured(settings_of(tmp_path, gemma=gpu), "gemma")
    assert (found.backend, found.model, found.server) == ("gemma", server.model.name, "vLLM 0.32.0")
    assert min(found.first_token_ms, found.tokens_per_s, found.tokens_per_s_at_16, found.prompt_tokens_per_s) > 0
    assert found.rerank_ms is not None
    assert found.notes == ()
    assert found.usd_per_million_output == pytest.approx(0.001 / found.tokens_per_s_at_16 * 1e6)
    assert found.usd_per_million_input == pytest.approx(0.001 / found.prompt_tokens_per_s * 1e6)
    assert read_benchmarks(tmp_path / BENCHMARKS_FILE) == (found,)
    assert len(steps) == 4


async def test_no_prompt_is_sent_twice(tmp_path: Path) -> None:
    """A server's cache would make it look quicker than it is."""
    async with OpenAIServer() as server:
        await measured(settings_of(tmp_path, gemma=openai_style(server)))
        asked = [body["messages"] for body in server.bodies() if body.get("stream")]
    assert len(asked) == 1 + RUNS + 16 + RUNS
    assert len({msgspec.json.encode(messages) for messages in asked}) == len(asked)


async def test_what_it_costs_is_what_the_ledger_has(tmp_path: Path) -> None:
    """At the price of the settings, and no more than was said beforehand."""
    async with GeminiServer() as server:
        paid = msgspec.structs.replace(gemini(server), price=PRICE)
        settings = settings_of(tmp_path, flash=paid)
        [planned] = plan(settings, ())
        assert planned.asks
        async with bench_services(settings, [planned]) as (services, caller):
            found = await measure(services, planned, caller, lambda _: None)
            report = services.accounts.usage(group_by="key")
    [booked] = (row for row in report.rows if row.name == caller.key)
    assert 0 < found.spent_usd <= planned.usd
    assert found.spent_usd == pytest.approx(booked.cost_usd)
    assert (found.usd_per_million_input, found.usd_per_million_output) == (1.0, 10.0)


async def test_the_price_named_beforehand_is_a_limit(tmp_path: Path) -> None:
    """A run that would cost more is stopped by a budget of its own."""
    async with GeminiServer() as server:
        settings = settings_of(tmp_path, flash=msgspec.structs.replace(gemini(server), price=PRICE))
        [planned] = plan(settings, ())
        cheap = msgspec.structs.replace(planned, tokens=msgspec.structs.replace(planned.tokens, input=10, output=1))
        async with bench_services(settings, [cheap]) as (services, caller):
            with pytest.raises(BudgetExceeded):
                await measure(services, cheap, caller, lambda _: None)
    assert read_benchmarks(tmp_path / BENCHMARKS_FILE) == ()


async def test_a_backend_that_fails_is_asked_once_and_leaves_no_result(tmp_path: Path) -> None:
    """A retry is no speed."""
    async with OpenAIServer(choose=lambda: Fault.UNAVAILABLE) as server:
        retrying = msgspec.structs.replace(openai_style(server), retries=5, model=server.model.name)
        with pytest.raises(UpstreamError):
            await measured(settings_of(tmp_path, gemma=retrying))
    assert read_benchmarks(tmp_path / BENCHMARKS_FILE) == ()


async def test_a_backend_that_cannot_rank_is_measured_without(tmp_path: Path) -> None:
    """The note says why."""
    async with OpenAIServer(dialect="openai", lacks=frozenset(("logprobs", "structured"))) as server:
        backend = msgspec.structs.replace(openai_style(server), model=server.model.name, price=PRICE)
        [found], _ = await measured(settings_of(tmp_path, own=backend))
    assert (found.rerank_ms, found.usd_per_1000_reranks) == (None, None)
    assert found.notes[0].startswith("no rerank: ")


def test_what_is_asked_about(tmp_path: Path) -> None:
    """Prices for tokens and unknown ones are, hours of one's own GPU and free models are not."""
    settings = settings_of(
        tmp_path,
        flash=BackendSettings(kind="gemini", api_key="k"),
        strange=BackendSettings(kind="openai", api_key="k", model="strange"),
        gemma=BackendSettings(kind="vllm", gpu_usd_per_hour=1.0),
        own=BackendSettings(kind="ollama", model="m"),
    )
    asks = {one.backend: one.asks for one in plan(settings, ())}
    assert asks == {"flash": True, "strange": True, "gemma": False, "own": False}
    [one] = plan(settings, ("flash", "flash"))
    assert 0 < one.usd < 1
    assert one.tokens.output > 20 * OUTPUT_TOKENS


def test_what_there_is_not_cannot_be_measured(tmp_path: Path) -> None:
    """A name that is not configured, or no backend at all."""
    with pytest.raises(UnknownBackend, match="gemma"):
        plan(settings_of(tmp_path, gemma=BRISK), ("flash",))
    with pytest.raises(MissingCapability, match=r"declare one under \[backends.NAME\]"):
        plan(settings_of(tmp_path), ())


async def test_a_reranker_is_measured_by_its_reranks(tmp_path: Path) -> None:
    """It has no speed of writing; dollars are those of its searches, and within what was said beforehand."""
    async with RerankServer("cohere") as server:
        price = PriceSettings(input=0, output=0, per_1000_requests=2.0)
        tei = BackendSettings(kind="rerank", url=server.url, api_key=KEY, model=MODEL, price=price)
        settings = settings_of(tmp_path, tei=tei)
        [planned] = plan(settings, ())
        [found], steps = await measured(settings)
    assert (found.first_token_ms, found.tokens_per_s, found.tokens_per_s_at_16) == (0, 0, 0)
    assert found.rerank_ms is not None
    assert min(found.rerank_ms, found.prompt_tokens_per_s) > 0
    assert found.usd_per_1000_reranks == pytest.approx(2.0)
    assert (found.usd_per_million_input, found.usd_per_million_output) == (0, None)
    assert 0 < found.spent_usd <= planned.usd
    assert len(steps) == 1


async def test_a_reranker_that_fails_leaves_no_result(tmp_path: Path) -> None:
    """Its error says that it did not rank."""
    async with RerankServer("cohere") as server:
        server.failing = [503] * 20
        tei = BackendSettings(kind="rerank", url=server.url, api_key=KEY, model=MODEL, dialect="cohere")
        with pytest.raises(UpstreamError):
            await measured(settings_of(tmp_path, tei=tei))
    assert read_benchmarks(tmp_path / BENCHMARKS_FILE) == ()
