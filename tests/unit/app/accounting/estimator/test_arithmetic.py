"""What a month costs."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.accounting.estimator.arithmetic import api_usd_at, break_even, self_host_usd_at
from app.accounting.estimator.arithmetic import estimate as estimate_month
from app.accounting.estimator.models import GPUS, MODELS, ApiCost, Estimate, SelfHostCost, Workload, conversations
from app.accounting.prices import Prices
from app.accounting.reports import Throughput
from app.backends.settings import BackendSettings, PriceSettings
from tests.fakes.money import Time
from tests.unit.app.accounting.test_benchmarks import MEASURED as BENCHMARK

MONTH = Workload(input_tokens=10_000_000, output_tokens=2_000_000)


def estimate(month: Workload = MONTH, measured: tuple[Throughput, ...] = (), **backends: BackendSettings) -> Estimate:
    return estimate_month(backends, Prices(backends, Time()), month, measured)


def row(of: Estimate, model: str, gpu: str) -> SelfHostCost:
    (found,) = (one for one in of.self_hosted if (one.model, one.gpu) == (model, gpu))
    return found


def test_geminis_month_by_token_class() -> None:
    """7 million fresh at 0.25, 3 million cached at 0.025, 2 million output at 1.50."""
    (api,) = estimate(msgspec.structs.replace(MONTH, cached_share=0.3)).apis
    assert api.usd == pytest.approx(7 * 0.25 + 3 * 0.025 + 2 * 1.5)
    assert (api.price_source, api.as_of, api.reference) == ("genai-prices 0.2.3", "2026-10-14", True)
    assert api.formula == (
        "(7,000,000 input x $0.25 + 3,000,000 cached x $0.025 + 2,000,000 output x $1.50) / 1,000,000 = $4.83"
    )


def test_a_gpus_month_by_hand() -> None:
    """Gemma 4B on a 4090: 95/s by 8 at once, prompts 50 times 95/s, 730 hours at 1.20."""
    found = row(estimate(), "Gemma 3 4B", "RTX 4090")
    hours = (10_000_000 / (95 * 50) + 2_000_000 / (95 * 8)) / 3600
    assert found.gpu_hours == pytest.approx(hours)
    assert (found.gpus, found.rented_hours) == (1, 730)
    assert found.usd == pytest.approx(876)
    assert found.formula == (
        "10,000,000 prompt tokens / 4,750 per s + 2,000,000 answer tokens / 760 per s = 1.32 h of work; "
        "1 x 730 h x $1.20 = $876.00"
    )
    needed = row(estimate(msgspec.structs.replace(MONTH, hours="needed")), "Gemma 3 4B", "RTX 4090")
    assert needed.usd == pytest.approx(hours * 1.2)


def test_slower_memory_is_a_slower_gpu() -> None:
    """By its bandwidth: 360 and 760 of the 4090's 1008 GB/s."""
    found = estimate(msgspec.structs.replace(MONTH, concurrency=1))
    for gpu, bandwidth in (("RTX 3060", 360), ("RTX 3080", 760), ("RTX 4090", 1008)):
        assert row(found, "Gemma 3 4B", gpu).output_tokens_per_s == pytest.approx(95 * bandwidth / 1008)


def test_what_fits_where() -> None:
    """27B only on a 4090 (5 conversations), 12B not on a 3080; a 3060 has room for 3 of 12B at once."""
    fits = {(model.name, gpu.name): conversations(model, gpu) for model in MODELS for gpu in GPUS.values()}
    assert (fits["Gemma 3 27B", "RTX 4090"], fits["Gemma 3 12B", "RTX 3060"]) == (5, 3)
    assert (fits["Gemma 3 27B", "RTX 3060"], fits["Gemma 3 27B", "RTX 3080"], fits["Gemma 3 12B", "RTX 3080"]) == (
        0,
        0,
        0,
    )
    assert all(fits[name, gpu] for name in ("Gemma 3 4B", "Qwen3.5 4B", "Qwen3.5 9B") for gpu in GPUS)
    listed = {(one.model, one.gpu): one.concurrency for one in estimate().self_hosted}
    assert listed == {place: min(8, room) for place, room in fits.items() if room}


def test_more_work_than_one_gpu_does_needs_more_gpus() -> None:
    """Hours of work over hours rented, rounded up."""
    huge = Workload(input_tokens=0, output_tokens=round(95 * 8 * 3600 * 730 * 2.5))
    found = row(estimate(huge), "Gemma 3 4B", "RTX 4090")
    assert found.gpus == 3
    assert found.usd == pytest.approx(3 * 876)


def test_every_priced_backend_is_there_and_the_reference_once() -> None:
    """A configured default model is no reference; one's own price makes any backend an API."""
    own = BackendSettings(kind="vllm", price=PriceSettings(input=0.1, output=0.2))
    found = estimate(flash=BackendSettings(kind="gemini", model="gemini-3.1-flash-lite"), own=own)
    assert [(api.backend, api.reference) for api in found.apis] == [("own", False), ("flash", False)]
    flex = BackendSettings(kind="gemini", model="gemini-3.1-flash-lite", service_tier="flex")
    assert estimate(flash=flex).apis[0].usd == pytest.approx(5.5 / 2)


def test_what_cannot_be_estimated_is_said() -> None:
    """With what is missing."""
    told = estimate(
        a=BackendSettings(kind="openai", url="http://127.0.0.1:1/v1"),
        b=BackendSettings(kind="ollama"),
        c=BackendSettings(kind="vllm", gpu_usd_per_hour=1.0),
    ).not_estimated
    assert [line.partition(":")[0] for line in told] == ["a", "b", "c"]
    assert ["price" in told[0], "gpu_usd_per_hour" in told[1], "measured" in told[2]] == [True] * 3


def measured(gpu_seconds: float = 100.0, output: int = 50_000) -> Throughput:
    return Throughput(
        backend="gemma",
        model="google/gemma-3-4b-it",
        gpu_seconds=gpu_seconds,
        input_tokens=400_000,
        cached_tokens=100_000,
        output_tokens=output,
    )


def test_a_measured_gpu_is_estimated_by_its_measurement() -> None:
    """A month of exactly the mix that was measured takes its busy seconds in proportion, and stands first."""
    month = Workload(input_tokens=400_000_000, output_tokens=50_000_000, cached_share=0.25, hours="needed")
    gemma = BackendSettings(kind="vllm", gpu_usd_per_hour=0.36)
    found = estimate(month, (measured(),), gemma=gemma).self_hosted[0]
    assert (found.backend, found.model) == ("gemma", "google/gemma-3-4b-it")
    assert found.gpu_hours == pytest.approx(100 * 1000 / 3600)
    assert found.usd == pytest.approx(10.0)
    assert found.speed_source == "measured: 100 busy seconds in the ledger"


@pytest.mark.parametrize("thin", [measured(gpu_seconds=9.0), measured(gpu_seconds=0.0)])
def test_a_few_seconds_are_no_measurement(thin: Throughput) -> None:
    """It says so instead."""
    gemma = BackendSettings(kind="vllm", gpu_usd_per_hour=0.36)
    found = estimate(MONTH, (thin,), gemma=gemma)
    assert all(one.backend is None for one in found.self_hosted)
    assert found.not_estimated == ("gemma: its speed is measured in use, or by winnow bench",)


def test_a_benchmark_takes_the_place_of_assumptions() -> None:
    """Also of the ledger's speed, which needs the factor for prompts; date and machine are said."""
    gemma = {"gemma": BackendSettings(kind="vllm", model=BENCHMARK.model, gpu_usd_per_hour=0.36)}
    prices = Prices(gemma, Time())
    ledger = (msgspec.structs.replace(measured(), model=BENCHMARK.model),)
    found = estimate_month(gemma, prices, MONTH, ledger, (BENCHMARK,))
    [own] = (one for one in found.self_hosted if one.backend == "gemma")
    assert (own.output_tokens_per_s, own.prompt_tokens_per_s) == (pytest.approx(450), 5000)
    assert own.gpu_hours == pytest.approx((10_000_000 / 5000 + 2_000_000 / 450) / 3600)
    assert own.speed_source == "winnow bench of 2026-11-29 on box (8 cores, Linux x86_64)"
    first = found.assumptions[0]
    assert (first.name, first.source) == ("speed of gemma (gemma-3-4b)", own.speed_source)
    assert first.value == "100.0/s alone, 850.0/s by 16 at once, prompts 5,000/s"
    assert found.not_estimated == ()
    two = {"gemma": msgspec.structs.replace(gemma["gemma"], url="http://a/v1,http://b/v1")}
    [own] = (one for one in estimate_month(two, prices, MONTH, (), (BENCHMARK,)).self_hosted if one.backend == "gemma")
    assert own.output_tokens_per_s == pytest.approx(225)  # of each of its GPUs


@pytest.mark.parametrize(
    "gemma",
    [
        BackendSettings(kind="vllm", model="another", gpu_usd_per_hour=0.36),
        BackendSettings(kind="vllm", model=BENCHMARK.model),
    ],
)
def test_a_benchmark_of_another_model_or_without_a_gpus_price_is_not_used(gemma: BackendSettings) -> None:
    """It would say nothing about the costs."""
    found = estimate_month({"gemma": gemma}, Prices({"gemma": gemma}, Time()), MONTH, (), (BENCHMARK,))
    assert all(one.backend is None for one in found.self_hosted)
    assert not any("winnow bench of" in assumption.source for assumption in found.assumptions)


def test_a_rerankers_benchmark_is_not_used() -> None:
    """It writes no answers, which a month is made of."""
    tei = {"tei": BackendSettings(kind="rerank", model="bge", gpu_usd_per_hour=0.36)}
    reranker = msgspec.structs.replace(BENCHMARK, backend="tei", model="bge", tokens_per_s=0, tokens_per_s_at_16=0)
    found = estimate_month(tei, Prices(tei, Time()), MONTH, (), (reranker,))
    assert all(one.backend is None for one in found.self_hosted)


def test_every_assumption_has_a_value_and_a_source() -> None:
    """The GPUs' prices among them, one's own marked as such."""
    found = estimate(msgspec.structs.replace(MONTH, gpus={"RTX 4090": 0.4}))
    values = {assumption.name: assumption for assumption in found.assumptions}
    assert (values["RTX 4090, per hour"].value, values["RTX 4090, per hour"].source) == ("$0.40", "yours")
    assert "RTX 3060, per hour" not in values
    assert all(assumption.value and assumption.source for assumption in found.assumptions)
    assert "not measured" in row(found, "Gemma 3 4B", "RTX 4090").speed_source


tokens = st.integers(0, 10**12)
months = st.builds(
    Workload,
    input_tokens=tokens,
    output_tokens=tokens,
    cached_share=st.floats(0, 1),
    hours=st.one_of(st.just("needed"), st.floats(1, 744)),
    concurrency=st.integers(1, 64),
    prompt_factor=st.floats(1, 200),
).filter(lambda month: month.tokens > 0)


@given(months, tokens, tokens)
def test_more_tokens_never_cost_less(month: Workload, more_input: int, more_output: int) -> None:
    """Over an API and on a GPU, for input and for output."""
    more = msgspec.structs.replace(
        month, input_tokens=month.input_tokens + more_input, output_tokens=month.output_tokens + more_output
    )
    before, after = estimate(month), estimate(more)
    assert after.apis[0].usd >= before.apis[0].usd * (1 - 1e-12)
    for model in MODELS:
        for gpu in GPUS:
            if conversations(model, GPUS[gpu]):
                assert row(after, model.name, gpu).usd >= row(before, model.name, gpu).usd * (1 - 1e-12)


@given(months)
def test_at_the_break_even_point_both_cost_the_same(month: Workload) -> None:
    """Below it the API is cheaper, at it neither; where there is none, it is cheaper than any number of full GPUs."""
    found = estimate(month)
    (api,) = found.apis
    for hosted in found.self_hosted:
        (point,) = hosted.break_even
        if point.monthly_tokens is None:
            assert never(hosted, api, month)
        elif point.monthly_tokens:
            by_api = api_usd_at(api, month, point.monthly_tokens)
            assert by_api == pytest.approx(self_host_usd_at(hosted, month, point.monthly_tokens), rel=1e-9)
            assert api_usd_at(api, month, point.monthly_tokens / 2) < self_host_usd_at(
                hosted, month, point.monthly_tokens / 2
            )


def never(hosted: SelfHostCost, api: ApiCost, month: Workload) -> bool:
    """Whether the API is cheaper at every load that just fills 1, 2, ... 50 GPUs, where GPUs are at their best."""
    if not api.usd:
        return True
    if hosted.rented_hours is None:
        return hosted.usd > api.usd * (1 - 1e-9)
    full = hosted.rented_hours / hosted.gpu_hours * month.tokens if hosted.gpu_hours else math.inf
    return all(
        api_usd_at(api, month, n * full) < self_host_usd_at(hosted, month, n * full) * (1 + 1e-6) for n in range(1, 51)
    )


@given(months)
def test_the_curve_goes_through_the_estimate(month: Workload) -> None:
    """The cost at the month's own tokens is the month's cost."""
    for hosted in estimate(month).self_hosted:
        assert self_host_usd_at(hosted, month, month.tokens) == pytest.approx(hosted.usd)


def test_a_free_api_is_never_beaten() -> None:
    """And a free GPU beats any other from the first token."""
    free = BackendSettings(kind="gemini", model="x", price=PriceSettings(input=0, output=0))
    month = msgspec.structs.replace(MONTH, gpus={"RTX 4090": 0.0})
    found = estimate(month, free=free)
    points = {point.backend: point.monthly_tokens for point in found.self_hosted[0].break_even}
    assert points == {"free": None, "reference": 0.0}
    assert break_even(found.self_hosted[0], found.apis[0], month) is None
